"""
What clients do when they are shown an impostor, and what that says of a program.

Rules of this module:

1. Only a client that *trusts the impostor's authority* and leaves all the same has refused. That cannot be seen from outside:
   programs with GnuTLS look at the authority when the handshake is over, clients on asyncio hang up in it without a word, and
   Java, Go and browsers have one alert for both. So a control has to show it: the same host, without pins, accepted.
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
    """It trusts the authority of the impostor, left at its certificate, and sent nothing."""
    LEFT = "left"
    """It left at the certificate and sent nothing: because of pins, or because it does not know the authority."""
    UNTRUSTED = "untrusted"
    """It said that it does not know the authority of the impostor: it would have left without pins, too."""
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


def reaction_of(contacts: Iterable[Contact], host: str, *, knows_authority: bool = False) -> Reaction | None:
    """
    What a client did with the impostors of *host*, all things considered; None when it did not come.

    Args:
        contacts: All connections; those of a control show that the client knows the authority, and count no further.
        host: Canonical.
        knows_authority: Whether that is known anyway.
    """
    here = [contact for contact in contacts if contact.host == host]
    found = worst(contact.reaction for contact in here if not contact.is_control)
    knows = knows_authority or any(contact.is_control and contact.reaction is Reaction.ACCEPTED for contact in here)
    return Reaction.REFUSED if found is Reaction.LEFT and knows else found


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
        is_control: Whether it was made without pins, to see that the client knows the authority.
    """

    at: datetime
    host: str
    port: int
    reaction: Reaction
    detail: str
    sent: int = 0
    shown: Pin | None = None
    is_control: bool = False


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
        reaction: What the program did, all things considered; None where the host was not tried.
        meaning: What it means.
        detail: How that was seen, in words.
    """

    host: str
    port: int
    rule: PinSet | None
    contacts: tuple[Contact, ...]
    reaction: Reaction | None
    meaning: Meaning
    detail: str = ""

    @property
    def sent(self) -> int:
        """
        How many bytes the impostors could read.
        """
        return sum(contact.sent for contact in self.contacts)

    @property
    def shown(self) -> Pin | None:
        """
        The pin of the key that the impostor showed; None where it did not come to that.
        """
        return _decisive(self.contacts).shown if self.contacts else None


def judge(
    contacts: Sequence[Contact], policy: Policy | None, now: datetime, *, knows_authority: bool = False
) -> list[Finding]:
    """
    What the connections of a program say of its pins, host by host; then the rules of the policy that were not tried.

    Args:
        contacts: Its connections, with those of a control.
        policy: What should be pinned; without one, every host should.
        now: The present instant, aware: an expired pin set may ask for nothing.
        knows_authority: Whether the program is known to trust the authority of the impostors.
    """
    groups: dict[tuple[str, int], list[Contact]] = {}
    for contact in contacts:
        if not contact.is_control:
            groups.setdefault((contact.host, contact.port), []).append(contact)
    controls = [contact for contact in contacts if contact.is_control]
    findings = []
    for (host, port), group in groups.items():
        rule = policy.find(host) if policy else None
        reaction = reaction_of([*controls, *group], host, knows_authority=knows_authority)
        findings.append(
            Finding(
                host=host,
                port=port,
                rule=rule,
                contacts=tuple(group),
                reaction=reaction,
                meaning=_meaning(reaction, is_listed=policy is None or _asks(rule, now)),
                detail=_detail(group, reaction, was_told=knows_authority),
            )
        )
    tried = {id(finding.rule) for finding in findings}
    untried = [rule for rule in (policy.pin_sets if policy else ()) if id(rule) not in tried and _asks(rule, now)]
    return findings + [
        Finding(host=rule.name, port=0, rule=rule, contacts=(), reaction=None, meaning=Meaning.UNPROVEN)
        for rule in untried
    ]


def _detail(group: Sequence[Contact], reaction: Reaction | None, *, was_told: bool) -> str:
    decisive = _decisive(group)
    if decisive.reaction is reaction:
        return decisive.detail
    return (
        f"{decisive.detail}; {'it is said to know' if was_told else 'a control has shown that it knows'} the authority"
    )


def _decisive(contacts: Sequence[Contact]) -> Contact:
    """The first of the connections that count."""
    return min(contacts, key=lambda contact: _ORDER.index(contact.reaction))


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
    return {
        "at": utc_text(now),
        "host": finding.host,
        "port": finding.port,
        "rule": finding.rule.name if finding.rule else None,
        "pins": [str(pin) for pin in finding.rule.all_pins] if finding.rule else [],
        "result": finding.reaction.value if finding.reaction else "untried",
        "meaning": finding.meaning.value,
        "detail": finding.detail,
        "shown": str(finding.shown) if finding.shown else None,
        "connections": len(finding.contacts),
        "sent": finding.sent,
    }


def write_finding(finding: Finding, now: datetime) -> str:
    """
    The finding as one line, with its end.
    """
    return json.dumps(document_of(finding, now)) + "\n"
