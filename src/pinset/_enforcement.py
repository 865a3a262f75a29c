"""
What a TLS object is given to judge its handshake by.

Two kinds of trust exist. ``ca-and-pins``: OpenSSL verifies chain, expiry and host name, and pins add to that.
``pins-only``, for self-signed servers: nothing but the pins is verified, so the pins have to carry everything.

With ``pins-only`` only the key of the server's own certificate proves anything: OpenSSL makes the server prove that it
holds that key, whatever it trusts (RFC 8446 section 4.4.3, RFC 5246 section 7.4.3), while the certificates behind it are
what the peer chose to send. So only a match of leaf pins counts, and what would pass without one, an unlisted or excluded
host, a report-only mismatch, an expired pin set, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from pinset._errors import ContextError, PinMismatchError, RefusedError, UnlistedHostError, UnverifiedChainError
from pinset._pinner import Pinner
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Role, Unlisted
from pinset._verdict import Decision, Outcome, Verdict

if TYPE_CHECKING:
    from pinset._sessions import SessionStore

Trust: TypeAlias = Literal["ca-and-pins", "pins-only"]
"""What a server has to satisfy: the certificate authorities and the pins, or the pins alone."""

_ERRORS: dict[Outcome, type[RefusedError]] = {
    Outcome.MATCHED: PinMismatchError,  # an expired pin set that blocks
    Outcome.MISMATCHED: PinMismatchError,
    Outcome.UNLISTED: UnlistedHostError,
}


def error_class(verdict: Verdict) -> type[RefusedError]:
    """
    The class of error that a refusing verdict calls for.
    """
    return _ERRORS.get(verdict.outcome, UnverifiedChainError)


@dataclass(frozen=True, slots=True)
class Enforcement:
    """
    What a TLS object needs to judge its handshake.

    Attributes:
        pinner: The policy in force.
        error: Turns a refusing verdict into the error of the boundary.
        sessions: Where sessions are kept for resumption, or None to shake hands in full each time.
        port: The port of the host; sessions of one port are not offered to another.
        trust: Whether OpenSSL verifies the chain too.
    """

    pinner: Pinner
    error: Callable[[Verdict], Exception]
    sessions: SessionStore | None = None
    port: int = 0
    trust: Trust = "ca-and-pins"

    def accepts(self, verdict: Verdict) -> bool:
        """
        Whether a connection with this verdict may carry data.
        """
        if self.trust == "pins-only":
            return (
                verdict.decision is Decision.ALLOW
                and verdict.outcome is Outcome.MATCHED
                and verdict.rule is not None
                and _is_leaf_only(verdict.rule)
            )
        return verdict.decision is not Decision.REFUSE


def check_trust(trust: Trust, policy: Policy) -> None:
    """
    Refuse a kind of trust that *policy* cannot carry.

    Raises:
        ContextError: There is no such kind; or it is ``pins-only``, and the policy would let somebody in without a match
            of a leaf pin.
    """
    if trust not in get_args(Trust):
        raise ContextError(f"trust is {trust!r}; it has to be one of {', '.join(map(repr, get_args(Trust)))}")
    if trust != "pins-only":
        return
    if policy.unlisted is not Unlisted.DENY:
        raise ContextError(
            "trust='pins-only' with unlisted = \"allow\": nothing at all would be verified of other hosts;"
            ' set unlisted = "deny"'
        )
    for rule in policy.pin_sets:
        if why := _weak_point(rule):
            raise ContextError(f"trust='pins-only' and the rule {rule.name}: {why}")


def _is_leaf_only(rule: PinSet) -> bool:
    return all(requirement.role is Role.LEAF for requirement in rule.requirements)


def _weak_point(rule: PinSet) -> str:
    if not _is_leaf_only(rule):
        return (
            "only leaf_pins prove anything when no chain is verified; anybody can send a certificate that he does not"
            " hold the key of. Give the pin of the server's own key as leaf_pins"
        )
    if rule.mode is not Mode.ENFORCE:
        return f'mode = "{rule.mode}" would let anybody in when no chain is verified; use mode = "enforce"'
    if rule.on_expiry is OnExpiry.UNPIN:
        return 'on_expiry = "unpin" would let anybody in when it has expired; use "block" or "enforce"'
    return ""
