"""
What a policy from elsewhere may not do: enforce less than the one that the program brings along.

Whoever steals the keys that sign pins could otherwise switch pinning off for every installed program at once, which is
worth more than any single pin.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from pinset._errors import Fault, HostError
from pinset._hosts import Scope, canonical_host
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Unlisted


def weaknesses(policy: Policy, floor: Policy) -> list[Fault]:
    """
    Where *policy* lets through what *floor* would refuse to look at without a pin.

    Other pins are no weakness: to change them is what updates are for. That a host is not listed is none while unlisted
    hosts are denied.

    Args:
        policy: The policy that would be in force.
        floor: The policy that the program brings along.
    """
    faults: dict[str, Fault] = {}
    if floor.unlisted is Unlisted.DENY and policy.unlisted is Unlisted.ALLOW:
        faults[""] = Fault("unlisted", "hosts that no rule names would be reached without pins")
    for host in _examples(policy, floor):
        rule = floor.find(host)
        if rule is not None and rule.mode is Mode.ENFORCE and (reason := _weakness(policy, host, rule)):
            faults.setdefault(rule.name, Fault(rule.name, f"{reason} (for instance {host})"))
    return list(faults.values())


def _examples(*policies: Policy) -> Iterator[str]:
    """
    Hosts to which every rule of *policies* applies somewhere, and every pair of rules that can meet.

    Patterns meet only where one lies in the other, or at the base of one.
    """
    patterns = {pattern for policy in policies for rule in policy.pin_sets for pattern in rule.patterns}
    # A label that no pattern names, so that nobody can make an exception for the example.
    named = {label for pattern in patterns for label in pattern.base.split(".")}
    label = next(name for number in itertools.count() if (name := f"x{number}") not in named)
    for pattern in patterns:
        names = {
            Scope.HOST: [pattern.base],
            Scope.LABEL: [f"{label}.{pattern.base}"],
            Scope.TREE: [pattern.base, f"{label}.{pattern.base}", f"{label}.{label}.{pattern.base}"],
        }
        for name in names[pattern.scope]:
            with suppress(HostError):  # too long to exist
                yield canonical_host(name)


def _weakness(policy: Policy, host: str, rule: PinSet) -> str:
    found = policy.find(host)
    if found is None:
        return "" if policy.unlisted is Unlisted.DENY else "would not be listed, and reached without pins"
    if found.mode is not Mode.ENFORCE:
        return f'would have mode = "{found.mode}"'
    if found.on_expiry is not OnExpiry.UNPIN:
        return ""
    if rule.on_expiry is not OnExpiry.UNPIN:
        return "would be unpinned after an expiry"
    assert found.expires is not None  # on_expiry needs both
    assert rule.expires is not None
    return "would be unpinned earlier" if found.expires < rule.expires else ""


def bounded(policy: Policy, until: datetime) -> Policy:
    """
    *policy*, but refusing every host that it enforces from an instant on. The rest stays as it is.

    The end is part of the policy, and no timer that may be late: a program that was suspended finds it on waking.

    Args:
        policy: The policy.
        until: The instant, aware. A rule that ends earlier by itself keeps its own end.
    """
    return Policy(tuple(_bounded(rule, until) for rule in policy.pin_sets), policy.unlisted)


def _bounded(rule: PinSet, until: datetime) -> PinSet:
    if rule.mode is not Mode.ENFORCE or (rule.expires is not None and rule.expires <= until):
        return rule
    return replace(rule, expires=until, on_expiry=OnExpiry.BLOCK)
