"""
Chains that attacks and accidents are made of, each for a client that trusts both a genuine and a rogue authority.

An app with the pin of the genuine key must refuse them all, before it sends anything. Half of them have no pinned key;
the other half has one and does not verify: pins add to verification and replace nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pinset.testing._authority import Authority, Identity


@dataclass(frozen=True, slots=True)
class HostileChain:
    """
    One of them.

    Attributes:
        name: Short, for the id of a test.
        why: What makes it hostile.
        identity: What the server shows.
        verifies: Whether it verifies, for a client that trusts both authorities and has no pins.
    """

    name: str
    why: str
    identity: Identity
    verifies: bool


def hostile_chains(
    genuine: Authority, rogue: Authority, leaf: Identity, hosts: Sequence[str]
) -> tuple[HostileChain, ...]:
    """
    Every hostile chain for a server.

    Args:
        genuine: Issued *leaf*.
        rogue: Is trusted by the client as well; made with an intermediate.
        leaf: The server's own identity: its key is the one that is pinned.
        hosts: The server's names.

    Returns:
        The chains; those that verify without pins first.
    """
    impostor = rogue.issue(*hosts)
    crossed = (*impostor.chain, genuine.cross_sign(rogue))
    stranger = Authority("Stranger")
    return (
        HostileChain("impostor", "another key, from an authority that the client trusts", impostor, verifies=True),
        HostileChain(
            "appended",
            "the genuine chain is sent behind the impostor's, so that it is served, but not verified",
            Identity(impostor.key, (*impostor.chain, *leaf.chain, genuine.root)),
            verifies=True,
        ),
        HostileChain(
            "cross-signed",
            "the rogue root was signed by the genuine one, so that there is a road up to it",
            Identity(impostor.key, crossed),
            verifies=True,
        ),
        HostileChain(
            "forged",
            "it names the genuine issuer, with the genuine chain behind it, and is signed by somebody else",
            rogue.impersonate_issuer(genuine, *hosts),
            verifies=False,
        ),
        HostileChain(
            "expired",
            "the pinned key, in a certificate that has ended",
            genuine.issue(*hosts, key=leaf.key, expired=True),
            verifies=False,
        ),
        HostileChain(
            "wrong-host",
            "the pinned key, in a certificate for another host",
            genuine.issue("elsewhere.test", key=leaf.key),
            verifies=False,
        ),
        HostileChain(
            "unknown-authority",
            "the pinned key, in a certificate of an authority that nobody trusts",
            stranger.issue(*hosts, key=leaf.key),
            verifies=False,
        ),
    )
