"""
The library in one function: `evaluate`.

Find the rule, compare the pins, decide. No I/O, no clock, no event loop: a chain and an instant come in, a `Verdict`
goes out. `Verdict` values are made here and nowhere else.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from pinset._certificates import Certificate, read_chain
from pinset._errors import CertificateError, HostError
from pinset._hosts import canonical_host
from pinset._pins import Pin
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Requirement, Role, Unlisted
from pinset._verdict import Decision, Outcome, Verdict


def evaluate(policy: Policy, host: str, chain: Sequence[bytes], now: datetime) -> Verdict:
    """
    Check a verified chain against the policy.

    Args:
        policy: The policy in force.
        host: The host that was to be reached, in any spelling.
        chain: The certificates that OpenSSL *verified* for this host, leaf first, DER. Never what the peer sent.
        now: The instant of the check, aware.

    Returns:
        The verdict. A certificate that cannot be read, or an empty chain, is a verdict that refuses, not an error.

    Raises:
        HostError: *host* has no canonical form.
    """
    host = canonical_host(host)
    rule = policy.find(host)
    if rule is None:
        decision = Decision.REFUSE if policy.unlisted is Unlisted.DENY else Decision.ALLOW
        return Verdict(host=host, outcome=Outcome.UNLISTED, decision=decision, at=now)
    if rule.mode is Mode.OFF:
        return Verdict(host=host, outcome=Outcome.EXCLUDED, decision=Decision.ALLOW, at=now, rule=rule)
    if not chain:
        return refuse(policy, host, now, outcome=Outcome.UNVERIFIED, detail="the verified chain is empty")
    try:
        certificates = read_chain(tuple(chain))
    except CertificateError as error:
        return refuse(policy, host, now, outcome=Outcome.UNREADABLE, detail=str(error))
    return _judge(rule, host, certificates, now)


def refuse(policy: Policy, host: str, now: datetime, *, outcome: Outcome, detail: str) -> Verdict:
    """
    The verdict on a host for which there is nothing to compare. It refuses, whatever the mode of the rule.

    Args:
        policy: The policy in force.
        host: The host that was to be reached, in any spelling.
        now: The instant of the check, aware.
        outcome: What was found instead of a chain.
        detail: In words.

    Returns:
        The verdict. A host without a canonical form is in no rule, and stands in it as it was given.
    """
    rule = None
    with contextlib.suppress(HostError):
        host = canonical_host(host)
        rule = policy.find(host)
    return Verdict(host=host, outcome=outcome, decision=Decision.REFUSE, at=now, rule=rule, detail=detail)


def _judge(rule: PinSet, host: str, chain: tuple[Certificate, ...], now: datetime) -> Verdict:
    found = [_found(requirement, chain) for requirement in rule.requirements]
    # The rule has a list (PinSet refuses to be empty unless it is off), and every list must have a match.
    outcome = Outcome.MATCHED if all(found) else Outcome.MISMATCHED
    expired = rule.expires is not None and now >= rule.expires
    return Verdict(
        host=host,
        outcome=outcome,
        decision=_decide(rule, outcome, expired=expired),
        at=now,
        rule=rule,
        matched=tuple(pin for pins in found for pin in pins),
        chain=chain,
        valid_until=None if expired else rule.expires,
        expired=expired,
    )


def _found(requirement: Requirement, chain: tuple[Certificate, ...]) -> list[Pin]:
    """The pins of one list that are in the chain, each compared with every digest: no early exit."""
    digests = _digests(requirement.role, chain)
    return [pin for pin in requirement.pins if _is_among(pin.digest, digests)]


def _digests(role: Role, chain: tuple[Certificate, ...]) -> list[bytes]:
    match role:
        case Role.ANY:
            return [certificate.spki_sha256 for certificate in chain]
        case Role.LEAF:
            return [chain[0].spki_sha256]
        case Role.CA:
            return [certificate.spki_sha256 for certificate in chain[1:]]
    return [certificate.certificate_sha256 for certificate in chain]  # Role.CERTIFICATE


def _is_among(digest: bytes, digests: list[bytes]) -> bool:
    same = False
    for other in digests:
        same |= hmac.compare_digest(digest, other)
    return same


def _decide(rule: PinSet, outcome: Outcome, *, expired: bool) -> Decision:
    if rule.mode is Mode.REPORT_ONLY or (expired and rule.on_expiry is OnExpiry.UNPIN):
        return Decision.ALLOW if outcome is Outcome.MATCHED else Decision.REPORT
    if expired and rule.on_expiry is OnExpiry.BLOCK:
        return Decision.REFUSE
    return Decision.ALLOW if outcome is Outcome.MATCHED else Decision.REFUSE
