"""
The rotation calendar of a policy: when certificates and pin sets end, and by when the next pins must have shipped.

Rules of this module:

1. A list of pins is served as long as *one* of its keys is, so it ends with the last of its certificates that are known;
   of several lists the first that ends ends the rule. Pins without a known certificate have no date.
2. The next pins ship *lead* before the rule ends: an app update has to reach the phones of people who do not look for
   it. A rule without a backup is due now, whatever the dates say.
3. A policy says nothing of certificates: they come from files, or from the records of ``pinset check``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pinset._pins import Pin
from pinset._policy import ENOUGH_PINS, Mode, OnExpiry, PinSet, Policy
from pinset.operate.record import Seen


class EventKind(StrEnum):
    """
    What happens on a day.
    """

    SHIP = "ship"
    """The next pins must have shipped."""
    PIN_SET = "pin set"
    """The pin set ends."""
    CERTIFICATE = "certificate"
    """A certificate with a pinned key ends, or the leaf below one."""


@dataclass(frozen=True, slots=True)
class Event:
    """
    One day of the calendar.

    Attributes:
        at: When.
        kind: What happens.
        rule: The name of the rule.
        what: In words.
    """

    at: datetime
    kind: EventKind
    rule: str
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """
    The calendar of a policy.

    Attributes:
        now: The instant from which it looks ahead.
        lead: How long before a rule ends the next pins must have shipped.
        events: In order of time, those of the past first.
        undated: Rules of which no end is known.
        rotations: What rules with a rotation note say, by their name.
    """

    now: datetime
    lead: timedelta
    events: tuple[Event, ...]
    undated: tuple[str, ...]
    rotations: dict[str, str]


def make_plan(policy: Policy, chains: Sequence[Sequence[Seen]], now: datetime, *, lead: timedelta) -> Plan:
    """
    The calendar of *policy*.

    Args:
        policy: The policy.
        chains: Certificates that are in service, leaf first.
        now: The present instant, aware.
        lead: How long before a rule ends the next pins must have shipped.
    """
    events: list[Event] = []
    undated: list[str] = []
    pinned = [pin_set for pin_set in policy.pin_sets if pin_set.mode is not Mode.OFF]
    by_pin = _by_pin(chains)
    for pin_set in pinned:
        of_rule = [*_pin_set_ends(pin_set), *_certificates_end(pin_set, by_pin), *_ship(pin_set, by_pin, now, lead)]
        events += of_rule
        if not of_rule:
            undated.append(pin_set.name)
    events.sort(key=lambda event: event.at)
    rotations = {pin_set.name: pin_set.rotation for pin_set in pinned if pin_set.rotation}
    return Plan(now, lead, tuple(events), tuple(undated), rotations)


_ByPin = dict[Pin, list[tuple[Seen, Seen]]]


def _by_pin(chains: Sequence[Sequence[Seen]]) -> _ByPin:
    """Every certificate by its pins, with the leaf of its chain."""
    found: _ByPin = {}
    for chain in chains:
        for certificate in chain:
            for pin in (certificate.pin, certificate.certificate_pin):
                found.setdefault(pin, []).append((certificate, chain[0]))
    return found


def _pin_set_ends(pin_set: PinSet) -> Iterator[Event]:
    if pin_set.expires is not None:
        what = f"the pin set expires: then {_AFTER[pin_set.on_expiry]}"
        yield Event(pin_set.expires, EventKind.PIN_SET, pin_set.name, what)


def _certificates_end(pin_set: PinSet, by_pin: _ByPin) -> Iterator[Event]:
    told: set[Pin] = set()
    for pin in pin_set.all_pins:
        for certificate, leaf in by_pin.get(pin, ()):
            for each in (leaf, certificate):
                if each.certificate_pin not in told:
                    told.add(each.certificate_pin)
                    is_pinned = each.pin in pin_set.all_pins or each.certificate_pin in pin_set.all_pins
                    what = f"the certificate of {each.subject} ends" + (", its key is pinned" if is_pinned else "")
                    yield Event(each.not_after, EventKind.CERTIFICATE, pin_set.name, what)


def _ship(pin_set: PinSet, by_pin: _ByPin, now: datetime, lead: timedelta) -> Iterator[Event]:
    if any(len(requirement.pins) < ENOUGH_PINS for requirement in pin_set.requirements):
        yield Event(now, EventKind.SHIP, pin_set.name, "there is no backup: make one and ship it now")
        return
    ends: list[tuple[datetime, str]] = []
    if pin_set.expires is not None and pin_set.on_expiry is not OnExpiry.ENFORCE:
        ends.append((pin_set.expires, "the pin set expires"))
    for requirement in pin_set.requirements:
        served = [certificate.not_after for pin in requirement.pins for certificate, _ in by_pin.get(pin, ())]
        if served:
            ends.append((max(served), "the last certificate with a pinned key ends"))
    if ends:
        end, why = min(ends)
        yield Event(
            _before(end, lead), EventKind.SHIP, pin_set.name, f"the next pins must have shipped: {why} on {end.date()}"
        )


def _before(end: datetime, lead: timedelta) -> datetime:
    try:
        return end - lead
    except OverflowError:  # before the year 1
        return end


_AFTER = {
    OnExpiry.UNPIN: "any key is accepted",
    OnExpiry.BLOCK: "every connection is refused",
    OnExpiry.ENFORCE: "a warning is due",
    None: "",
}


def in_words(event: Event, now: datetime) -> str:
    """
    How far an event is off.
    """
    days = (event.at.date() - now.date()).days
    if days == 0:
        return "today"
    return f"in {days} day{'s' * (days != 1)}" if days > 0 else f"{-days} day{'s' * (days != -1)} ago"
