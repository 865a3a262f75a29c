"""
What clients do when they are shown an impostor, and what that says of a program.

Rules of this module:

1. Only a client that broke off *because of a certificate* has refused. What ended earlier, or because the client does not
   know the impostor's authority, says nothing of pins, and counts as no proof.
2. The worst that a host was given decides: a program that refuses once and then tries without pins has accepted.
3. What was sent is counted, never kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pinset._pins import Pin
from pinset._policy import Mode, OnExpiry, PinSet, Policy
from pinset.formats._document import utc_text


class Reaction(StrEnum):
    """
    What a client did on one connection to an impostor; the worst is first.
    """

    CLEARTEXT = "cleartext"
    """It sent data without TLS: anybody on the road reads it."""
    ACCEPTED = "accepted"
    """It took the impostor for the host, and went on."""
    REFUSED = "refused"
    """It broke off at the impostor's certificate, and sent nothing."""
    UNTRUSTED = "untrusted"
    """It does not know the authority of the impostor: it would have refused without pins, too."""
    UNFINISHED = "unfinished"
    """It did not come to a certificate: this says nothing."""

    @property
    def is_read(self) -> bool:
        """
        Whether the impostor could read what was sent.
        """
        return self in {Reaction.CLEARTEXT, Reaction.ACCEPTED}


_ORDER = tuple(Reaction)


def worst(reactions: Iterable[Reaction]) -> Reaction | None:
    """
    The reaction that counts; None where there is none.
    """
    return min(reactions, key=_ORDER.index, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """
    One connection to an impostor.

    Attributes:
        at: When it began.
        host: Whom the client took the impostor for: the server name of its TLS, else what it asked the proxy for.
        port: The port that it asked for.
        reaction: What it did.
        detail: How that was seen, in words.
        sent: How many bytes the impostor could read.
        shown: The pin of the impostor's key; None where it did not come to that.
    """

    at: datetime
    host: str
    port: int
    reaction: Reaction
    detail: str
    sent: int = 0
    shown: Pin | None = None


class Meaning(StrEnum):
    """
    What a finding means for the pins.
    """

    HOLDS = "holds"
    """The program refuses impostors of this host."""
    FAILS = "fails"
    """It talks to impostors of a host that it should have pinned."""
    UNPROVEN = "unproven"
    """The host is listed, and nothing was shown."""
    UNASKED = "unasked"
    """No rule asks for a refusal: none covers the host, or one that reports only, is off, or has expired and unpins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    What a program did to the impostors of one host, or to those of a rule that it did not try.

    Attributes:
        host: The host, or the name of the rule.
        port: The port; 0 for a rule.
        rule: The pin set that applies; None without.
        contacts: The connections, in their order.
        meaning: What it means.
    """

    host: str
    port: int
    rule: PinSet | None
    contacts: tuple[Contact, ...]
    meaning: Meaning

    @property
    def reaction(self) -> Reaction | None:
        """
        The reaction that counts; None where the host was not tried.
        """
        return worst(contact.reaction for contact in self.contacts)

    @property
    def sent(self) -> int:
        """
        How many bytes the impostors could read.
        """
        return sum(contact.sent for contact in self.contacts)

    @property
    def decisive(self) -> Contact | None:
        """
        The first connection with the reaction that counts.
        """
        return next((contact for contact in self.contacts if contact.reaction is self.reaction), None)


def judge(contacts: Sequence[Contact], policy: Policy | None, now: datetime) -> list[Finding]:
    """
    What the connections of a program say of its pins, host by host; then the rules of the policy that were not tried.

    Args:
        contacts: Its connections.
        policy: What should be pinned; without one, every host should.
        now: The present instant, aware: an expired pin set may ask for nothing.
    """
    groups: dict[tuple[str, int], list[Contact]] = {}
    for contact in contacts:
        groups.setdefault((contact.host, contact.port), []).append(contact)
    findings = []
    for (host, port), group in groups.items():
        rule = policy.find(host) if policy else None
        meaning = _meaning(worst(each.reaction for each in group), is_listed=policy is None or _asks(rule, now))
        findings.append(Finding(host=host, port=port, rule=rule, contacts=tuple(group), meaning=meaning))
    tried = {id(finding.rule) for finding in findings}
    untried = [rule for rule in (policy.pin_sets if policy else ()) if id(rule) not in tried and _asks(rule, now)]
    return findings + [
        Finding(host=rule.name, port=0, rule=rule, contacts=(), meaning=Meaning.UNPROVEN) for rule in untried
    ]


def _asks(rule: PinSet | None, now: datetime) -> bool:
    """Whether an app with this rule has to refuse an impostor now."""
    if rule is None or rule.mode is not Mode.ENFORCE:
        return False
    return rule.on_expiry is not OnExpiry.UNPIN or rule.expires is None or now < rule.expires


def _meaning(reaction: Reaction | None, *, is_listed: bool) -> Meaning:
    if not is_listed:
        return Meaning.UNASKED
    if reaction is Reaction.REFUSED:
        return Meaning.HOLDS
    return Meaning.FAILS if reaction is not None and reaction.is_read else Meaning.UNPROVEN


def conclude(findings: Sequence[Finding]) -> Meaning:
    """
    What all findings mean together: one failure fails, and without a single refusal nothing is proven.
    """
    meanings = {finding.meaning for finding in findings}
    if Meaning.FAILS in meanings:
        return Meaning.FAILS
    return Meaning.HOLDS if Meaning.HOLDS in meanings and Meaning.UNPROVEN not in meanings else Meaning.UNPROVEN


def document_of(finding: Finding, now: datetime) -> dict[str, object]:
    """
    The finding as JSON has it: evidence that on this day, with these pins, this is what came of it.

    Args:
        finding: What was found.
        now: When.
    """
    decisive = finding.decisive
    return {
        "at": utc_text(now),
        "host": finding.host,
        "port": finding.port,
        "rule": finding.rule.name if finding.rule else None,
        "pins": [str(pin) for pin in finding.rule.all_pins] if finding.rule else [],
        "result": finding.reaction.value if finding.reaction else "untried",
        "meaning": finding.meaning.value,
        "detail": decisive.detail if decisive else "",
        "shown": str(decisive.shown) if decisive and decisive.shown else None,
        "connections": len(finding.contacts),
        "sent": finding.sent,
    }


def write_finding(finding: Finding, now: datetime) -> str:
    """
    The finding as one line, with its end.
    """
    return json.dumps(document_of(finding, now)) + "\n"
