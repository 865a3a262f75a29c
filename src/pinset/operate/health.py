"""
What the records of a check say of each host: which pin matched, what is due, and what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pinset._hosts import Scope
from pinset._pins import Pin
from pinset._policy import Mode, PinSet, Policy
from pinset.operate.record import Record


@dataclass(frozen=True, slots=True)
class Health:
    """
    The state of one host.

    Attributes:
        record: What was seen.
        rule: The pin set that applies.
        unmatched: Pins of the rule that are in no chain of any host with that rule.
        has_backup: Whether a pin of the rule is not in the live chain.
        leaf_days: Days to the end of the leaf; None without a chain.
        expiry_days: Days to the expiry of the pin set; None without one.
        due: What is due, in words.
    """

    record: Record
    rule: PinSet
    unmatched: tuple[Pin, ...]
    has_backup: bool
    leaf_days: int | None
    expiry_days: int | None
    due: tuple[str, ...]


def hosts_to_check(policy: Policy) -> tuple[list[str], list[str]]:
    """
    The hosts that a policy names, and the rules that name none.

    Returns:
        Hosts, each once, and the names of rules such as ``*.example.com``.
    """
    hosts: dict[str, None] = {}
    nameless: list[str] = []
    for pin_set in policy.pin_sets:
        if pin_set.mode is Mode.OFF:
            continue
        pattern = pin_set.patterns[0]
        if pattern.scope is Scope.LABEL:
            nameless.append(pin_set.name)
        elif policy.find(pattern.base) is pin_set:
            hosts[pattern.base] = None
    return list(hosts), nameless


def assess(policy: Policy, records: Sequence[Record], now: datetime, *, within: timedelta) -> list[Health]:
    """
    The state of every host that was checked.

    Args:
        policy: The policy that was checked.
        records: What was seen.
        now: The present instant, aware.
        within: What ends earlier than this is due.
    """
    served: dict[str, set[Pin]] = {}
    for record in records:
        served.setdefault(record.rule, set()).update(_pins_of(record))
    return [_health(policy, record, served[record.rule], now, within) for record in records]


def _pins_of(record: Record) -> set[Pin]:
    return {pin for each in record.chain for pin in (each.pin, each.certificate_pin)}


def _health(policy: Policy, record: Record, served: set[Pin], now: datetime, within: timedelta) -> Health:
    rule = policy.find(record.host)
    assert rule is not None  # a record is of a host that a rule covers
    leaf = record.chain[0].not_after if record.chain else None
    live = _pins_of(record)
    has_backup = any(pin not in live for pin in rule.all_pins)
    due: list[str] = []
    if leaf is not None and leaf - now <= within:
        due.append(f"the certificate ends on {leaf.date()}")
    if rule.expires is not None and rule.expires - now <= within:
        due.append(f"the pin set expires on {rule.expires.date()}")
    if record.chain and not has_backup:
        due.append("there is no backup: every pin is in the live chain")
    return Health(
        record=record,
        rule=rule,
        unmatched=tuple(pin for pin in dict.fromkeys(rule.all_pins) if pin not in served),
        has_backup=has_backup,
        leaf_days=None if leaf is None else (leaf - now).days,
        expiry_days=None if rule.expires is None else (rule.expires - now).days,
        due=tuple(due),
    )


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    A time in which the checks of one host saw the same.

    Attributes:
        first: The first record of it.
        last: The last.
        count: How many.
    """

    first: Record
    last: Record
    count: int


def stretches(records: Sequence[Record]) -> list[Stretch]:
    """
    The history of each host, in order of time: one stretch for as long as result, pins and leaf stay what they are.
    """
    found: dict[tuple[str, int], list[Stretch]] = {}
    for record in sorted(records, key=lambda record: record.at):
        of_host = found.setdefault((record.host, record.port), [])
        if of_host and _same(of_host[-1].last, record):
            of_host[-1] = Stretch(of_host[-1].first, record, of_host[-1].count + 1)
        else:
            of_host.append(Stretch(record, record, 1))
    return [stretch for of_host in found.values() for stretch in of_host]


def _same(one: Record, other: Record) -> bool:
    return (one.result, one.matched, one.chain[:1], one.detail) == (
        other.result,
        other.matched,
        other.chain[:1],
        other.detail,
    )
