"""
Formats in which a name covers itself, or itself and everything below: Android and TrustKit ↔ pin sets.

Their look-up: the exact name first, else the longest name that includes subdomains. A name stands once. A name without
pins, or excluded, takes its hosts out of what a shorter name says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pinset._errors import Fault, HostError, PolicyError
from pinset._hosts import Scope, canonical_host, parent
from pinset._pins import Pin
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Subdomains, Unlisted
from pinset.formats.exchange import Effect, Imported, Loss, check_pin_count

_BELOW = "pinset-probe"  # a label that no policy names: what it finds is what applies to any other


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """
    One name of such a format.

    Attributes:
        place: Where it stands.
        name: Canonical.
        below: Whether it includes subdomains.
        pins: Empty where the name is explicitly not pinned.
        mode: Enforced or reported only.
        expires: From this instant on there are no pins; None for never.
        allow_single_pin: Whether the format lets one pin be enforced.
    """

    place: str
    name: str
    below: bool
    pins: tuple[Pin, ...] = ()
    mode: Mode = Mode.ENFORCE
    expires: datetime | None = None
    allow_single_pin: bool = False


def canonical_domain(text: str) -> str:
    """
    The canonical form of a name in such a format.

    Raises:
        HostError: It has none, or has a star, which these formats take for a letter and never match.
    """
    name = text.strip()
    if "*" in name:
        raise HostError(f"{name!r} has a star, which this format never matches; include subdomains instead", text=text)
    return canonical_host(name)


def policy_from_domains(domains: Sequence[Domain], faults: list[Fault], losses: list[Loss], *, source: str) -> Imported:
    """
    The policy that says the same as *domains*.

    Raises:
        PolicyError: With *faults* and those that are found here.
    """
    check_pin_count((len(domain.pins) for domain in domains), source=source)
    by_name: dict[str, Domain] = {}
    for domain in domains:
        if (first := by_name.setdefault(domain.name, domain)) is not domain:
            reason = f"{domain.name} already stands on {first.place}"
            faults.append(Fault(domain.place, reason, "merge the two"))
    pin_sets: list[PinSet] = []
    for domain in by_name.values():
        if not domain.pins and not _is_pinned(by_name, parent(domain.name)):
            losses.append(Loss(domain.place, f"{domain.name} has no pins, and nothing above it has: left out"))
            continue
        try:
            pin_sets.append(_pin_set(domain, losses))
        except PolicyError as error:
            faults.extend(
                Fault(f"{domain.place}, {fault.path}", fault.reason, fault.suggestion) for fault in error.faults
            )
    if not pin_sets and not faults:
        faults.append(Fault("", "the file pins no host"))
    if faults:
        raise PolicyError(faults, source=source)
    return Imported(Policy(tuple(pin_sets), Unlisted.ALLOW), tuple(losses))


def _pin_set(domain: Domain, losses: list[Loss]) -> PinSet:
    below = Subdomains.ALL if domain.below else Subdomains.NONE
    if not domain.pins:
        return PinSet(name=domain.name, subdomains=below, mode=Mode.OFF)
    is_single = domain.allow_single_pin and len(set(domain.pins)) == 1
    if is_single and domain.mode is Mode.ENFORCE:
        losses.append(Loss(domain.place, f"{domain.name} has one pin and no backup; allow_single_pin accepts that"))
    return PinSet(
        name=domain.name,
        subdomains=below,
        pins=domain.pins,
        mode=domain.mode,
        expires=domain.expires,
        on_expiry=None if domain.expires is None else OnExpiry.UNPIN,
        allow_single_pin=is_single,
    )


def _is_pinned(by_name: dict[str, Domain], name: str) -> bool:
    """Whether hosts below *name* are pinned by the longest name that includes them."""
    while name:
        if (domain := by_name.get(name)) is not None and domain.below:
            return bool(domain.pins)
        name = parent(name)
    return False


@dataclass(frozen=True, slots=True)
class Cover:
    """
    What a pin set covers, in the words of such a format.
    """

    name: str
    below: bool


def cover_any_depth(policy: Policy, pin_set: PinSet, losses: list[Loss]) -> Cover:
    """
    The name for *pin_set* where subdomains are all or none.
    """
    scopes = {pattern.scope for pattern in pin_set.patterns}
    name = pin_set.patterns[0].base
    if scopes in ({Scope.HOST}, {Scope.TREE}):
        return Cover(name, Scope.TREE in scopes)
    added = [f"{_BELOW}.{_BELOW}.{name}", *([] if Scope.HOST in scopes else [name])]
    what = "covers any depth there" + ("" if Scope.HOST in scopes else ", and the host itself")
    losses.append(Loss(pin_set.name, what, _effect_of_covering(policy, pin_set, added)))
    return Cover(name, below=True)


def cover_one_label(policy: Policy, pin_set: PinSet, losses: list[Loss]) -> Cover:
    """
    The name for *pin_set* where subdomains are those of one more label, or none.
    """
    scopes = {pattern.scope for pattern in pin_set.patterns}
    name = pin_set.patterns[0].base
    if Scope.TREE in scopes:
        losses.append(Loss(pin_set.name, "covers one more label there: hosts below are not pinned", Effect.WEAKENS))
    elif Scope.HOST not in scopes:
        effect = _effect_of_covering(policy, pin_set, [name])
        losses.append(Loss(pin_set.name, "covers the host itself there", effect))
    return Cover(name, scopes != {Scope.HOST})


def _effect_of_covering(policy: Policy, pin_set: PinSet, hosts: list[str]) -> Effect:
    """What it does to the pins when *pin_set* applies to *hosts*, which it does not cover."""
    for host in hosts:
        try:
            found = policy.find(host)
        except HostError:  # too long to exist
            continue
        if found is not None and found is not pin_set and found.mode is not Mode.OFF:
            return Effect.WEAKENS  # its own pins are replaced by those of another rule
    return Effect.TIGHTENS


def refuse_doubles(covers: Sequence[tuple[Cover, PinSet]], faults: list[Fault]) -> None:
    """
    A name stands once in such a format; a host and ``**.`` of it with different pins cannot both be said.
    """
    first: dict[str, PinSet] = {}
    for cover, pin_set in covers:
        if (other := first.setdefault(cover.name, pin_set)) is not pin_set:
            reason = f"and {other.name} are two rules, and the format has one for a name"
            faults.append(Fault(pin_set.name, reason, "merge the two"))
