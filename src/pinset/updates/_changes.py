"""
What a new policy changes, and what speaks against publishing it.
"""

from __future__ import annotations

from pinset._errors import Fault
from pinset._policy import ENOUGH_PINS, PIN_SET_FIELDS, Mode, PinSet, Policy, Role
from pinset.updates._floor import weaknesses

_LISTS = tuple(role.value for role in Role)


def changes(before: Policy | None, after: Policy) -> list[str]:
    """
    The differences, a line each: ``+`` for what is new, ``-`` for what is gone.

    Args:
        before: The policy that is published; None for the first.
        after: The one that is to follow.
    """
    if before is None:
        return [line for rule in after.pin_sets for line in _whole("+", rule)]
    lines: list[str] = []
    if before.unlisted is not after.unlisted:
        lines += [f"- unlisted = {before.unlisted}", f"+ unlisted = {after.unlisted}"]
    old, new = ({rule.name: rule for rule in policy.pin_sets} for policy in (before, after))
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            lines += _whole("-", old[name])
        elif name not in old:
            lines += _whole("+", new[name])
        else:
            lines += _difference(old[name], new[name])
    return lines


def _whole(sign: str, rule: PinSet) -> list[str]:
    return [f"{sign} {rule.name} ({rule.mode})", *(f"{sign}   {pin}" for pin in rule.all_pins)]


def _difference(old: PinSet, new: PinSet) -> list[str]:
    lines: list[str] = []
    for field in PIN_SET_FIELDS:
        before, after = getattr(old, field), getattr(new, field)
        if before == after:
            continue
        if field in _LISTS:
            lines += [f"-   {field}: {pin}" for pin in before if pin not in after]
            lines += [f"+   {field}: {pin}" for pin in after if pin not in before]
        else:
            lines += [f"-   {field} = {before}", f"+   {field} = {after}"]
    return [f"  {new.name}", *lines] if lines else []


def objections(before: Policy | None, after: Policy) -> list[Fault]:
    """
    Why a policy should not be published.

    Args:
        before: The policy that is published; None for the first.
        after: The one that is to follow.
    """
    faults: list[Fault] = []
    old = {rule.name: rule for rule in before.pin_sets} if before is not None else {}
    for rule in after.pin_sets:
        if rule.mode is not Mode.ENFORCE:
            continue
        faults.extend(
            Fault(rule.name, f"{requirement.role} has one pin: the next key change cuts every program off")
            for requirement in rule.requirements
            if len(requirement.pins) < ENOUGH_PINS
        )
        previous = old.get(rule.name)
        if previous is not None and previous.all_pins and not {*rule.all_pins} & {*previous.all_pins}:
            reason = "has no pin in common with the policy before: the server cannot satisfy programs that have either"
            faults.append(Fault(rule.name, reason, "keep the pin in service until the key was changed"))
    if before is not None:
        faults.extend(
            Fault(fault.path, fault.reason, "programs whose own policy enforces it will refuse this one")
            for fault in weaknesses(after, before)
        )
    return faults
