"""
What was found, what is done about it, and the evidence for both.

`Outcome` is what the chain says and is never altered by mode, expiry or exclusion; `Decision` is derived from it in one
place (`pinset._evaluate`). A report-only rule changes the decision, never the finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pinset._certificates import Certificate
from pinset._pins import Pin, PinKind
from pinset._policy import Mode, OnExpiry, PinSet, Role

_SHOWN_CERTIFICATES = 10
_SHOWN_PINS = 20


class Outcome(StrEnum):
    """
    What was found.
    """

    MATCHED = "matched"
    """Every list of the rule has a pin in the verified chain."""
    MISMATCHED = "mismatched"
    """A list of the rule has no pin in the verified chain."""
    UNLISTED = "unlisted"
    """No rule covers the host."""
    EXCLUDED = "excluded"
    """The rule of the host is switched off."""
    UNVERIFIED = "unverified"
    """There is no chain that OpenSSL verified for the host."""
    UNREADABLE = "unreadable"
    """A certificate of the chain is not strict DER."""
    FAILED = "failed"
    """The check itself failed."""


class Decision(StrEnum):
    """
    What is done about it.
    """

    ALLOW = "allow"
    REPORT = "report"
    """Let through, although an enforced rule would have refused."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    The result of one check. Made by `pinset.evaluate`.

    Attributes:
        host: The canonical host.
        outcome: What was found.
        decision: What is done about it.
        rule: The pin set that applies, or None.
        matched: The pins that were found in the chain.
        chain: The certificates OpenSSL verified, leaf first; empty where no rule asked for them.
        at: The instant of the check, by the clock of the `Pinner`.
        valid_until: The instant at which the verdict has to be made anew, or None.
        expired: The pin set was past its expiry.
        detail: More about an outcome other than a match or a mismatch.
    """

    host: str
    outcome: Outcome
    decision: Decision
    at: datetime
    rule: PinSet | None = None
    matched: tuple[Pin, ...] = ()
    chain: tuple[Certificate, ...] = ()
    valid_until: datetime | None = None
    expired: bool = False
    detail: str = ""

    @property
    def enforced(self) -> bool:
        """
        Whether a mismatch would have been refused.
        """
        if self.rule is None or self.rule.mode is not Mode.ENFORCE:
            return False
        return not (self.expired and self.rule.on_expiry is OnExpiry.UNPIN)

    @property
    def blocked_by_expiry(self) -> bool:
        """
        Whether the expiry of the pin set, and not the chain, is why the connection is refused.
        """
        return self.outcome is Outcome.MATCHED and self.decision is Decision.REFUSE

    def explain(self) -> str:
        """
        The verdict for a person at 3 a.m.: host, rule, what was expected, what was seen, what to do next.
        """
        return "\n".join(_lines(self))


def _lines(verdict: Verdict) -> Iterator[str]:
    rule = verdict.rule
    headline = _EXPIRED if verdict.blocked_by_expiry else _HEADLINES[verdict.outcome]
    yield headline.format(host=verdict.host) + (f": {verdict.detail}" if verdict.detail else "")
    if rule is not None:
        expiry = f", expires {rule.expires:%Y-%m-%dT%H:%M:%S%z} then {rule.on_expiry}" if rule.expires else ""
        yield f"  rule      {rule.name} ({rule.mode}{expiry})"
    if verdict.expired:
        yield "            it has expired"
    if rule is not None and verdict.outcome is Outcome.MISMATCHED:
        for requirement in rule.requirements:
            yield f"  expected  {_PLACES[requirement.role]}"
            yield from (f"              {pin}" for pin in requirement.pins[:_SHOWN_PINS])
            if (more := len(requirement.pins) - _SHOWN_PINS) > 0:
                yield f"              and {more} more"
    if verdict.chain:
        yield "  seen      the chain that OpenSSL verified, leaf first"
        for index, certificate in enumerate(verdict.chain[:_SHOWN_CERTIFICATES]):
            dates = f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
            yield f"            {index} {Pin(PinKind.SPKI, certificate.spki_sha256)}  {certificate.subject}  {dates}"
            if rule is not None and rule.certificate_pins:
                yield f"              {Pin(PinKind.CERTIFICATE, certificate.certificate_sha256)}"
    yield from (
        f"  next      {line}" if index == 0 else f"            {line}" for index, line in enumerate(_next(verdict))
    )


def _next(verdict: Verdict) -> Iterator[str]:
    if verdict.blocked_by_expiry:
        yield 'Ship a policy with fresh pins and a later expires. This rule says on_expiry = "block".'
        return
    match verdict.outcome:
        case Outcome.MISMATCHED:
            yield f"If the server's key was changed on purpose, add {_what_to_add(verdict)} to the rule, once you have"
            yield "compared it over another network. If not, somebody is between you and the server: do not add it."
        case Outcome.UNLISTED:
            yield 'Add the host and its pins to the policy, or say unlisted = "allow" to reach hosts without pins.'
        case Outcome.UNVERIFIED:
            yield "Leave certificate and host name verification on: mend the chain at the server, or find who is in between."
        case Outcome.UNREADABLE:
            yield "Have the server's certificate issued anew in DER; nothing here can be relaxed."
        case Outcome.FAILED:
            yield "This is a fault in pinset or in the clock it was given; the log has the traceback."
        case _:
            pass


def _what_to_add(verdict: Verdict) -> str:
    """What would make the rule match this chain: for each list that has no match, the line of a certificate that may."""
    assert verdict.rule is not None  # a mismatch is with a rule
    lists = verdict.rule.requirements
    unmet = [one.role for one in lists if not set(one.pins) & set(verdict.matched)] or [one.role for one in lists]
    advice = {
        Role.ANY: "its pin (line 0 above)",
        Role.LEAF: "its pin (line 0 above)",
        Role.CA: "the pin of a certificate that signed it (line 1 or later) as ca_pins",
        Role.CERTIFICATE: "the fingerprint of its certificate (below line 0) as certificate_pins",
    }
    return " and ".join(dict.fromkeys(advice[role] for role in unmet))


_EXPIRED = "the pin set of {host} has expired, and the policy blocks it"
_HEADLINES = {
    Outcome.MATCHED: "{host} holds a pinned key",
    Outcome.MISMATCHED: "{host} does not hold a pinned key",
    Outcome.UNLISTED: "{host} is not listed in the policy",
    Outcome.EXCLUDED: "{host} is excluded from pinning",
    Outcome.UNVERIFIED: "{host} has no verified chain to compare pins with",
    Outcome.UNREADABLE: "{host} sent a certificate that cannot be read",
    Outcome.FAILED: "{host} could not be checked",
}
_PLACES = {
    Role.ANY: "one of these keys in any certificate of the chain",
    Role.LEAF: "one of these keys in the server's own certificate",
    Role.CA: "one of these keys in a certificate above the server's own",
    Role.CERTIFICATE: "one of these certificates in the chain",
}
