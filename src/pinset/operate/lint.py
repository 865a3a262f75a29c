"""
Faults and risks of a policy that can be seen without a network, each with its reason and its fix.

A policy that can be read has no contradictions: `pinset.Policy` refuses those. What is found here is what takes apps
down or protects nothing all the same. Each rule is one function of the policy and the instant; the table at the end
names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pinset._certificates import Certificate
from pinset._hosts import Scope, is_address, parent
from pinset._pins import Pin, PinKind
from pinset._policy import ENOUGH_PINS, Mode, OnExpiry, PinSet, Policy, Role, Unlisted

_SOON = timedelta(days=30)
_SHORT_LIFE = timedelta(days=100)
_NAMED = 5
# What tutorials print, this project's among them, and what people leave in place.
_EXAMPLES = frozenset(
    Pin.parse(text)
    for text in (
        "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y=",
        "sha256/fwza0LRMXouZHRC8Ei+4PyuldPDcf3UKgO/04cDM1oE=",
        "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=",
        "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",  # SHA-256 of nothing
    )
)


class Weight(StrEnum):
    """
    How much a finding matters: a ``risk`` is to be fixed, a ``note`` to be known.
    """

    RISK = "risk"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was found.

    Attributes:
        rule: The name of the rule that found it.
        weight: How much it matters.
        place: The host of the policy, or the key at its top.
        reason: What is wrong, and what comes of it.
        fix: What to do about it.
    """

    rule: str
    weight: Weight
    place: str
    reason: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """
    What a policy is judged with.

    Attributes:
        now: The present instant, aware.
        certificates: Those that are known of the hosts; pins are looked up in them.
        is_public_suffix: Whether anybody can register a name below this one; None when no list is at hand.
    """

    now: datetime
    certificates: Sequence[Certificate] = ()
    is_public_suffix: Callable[[str], bool] | None = None


def lint(policy: Policy, around: Surroundings) -> list[Finding]:
    """
    Everything that is found: of the policy, of each rule in its order, and of rules together.

    Args:
        policy: A policy that could be read.
        around: What it is judged with.
    """
    found = [finding for pin_set in policy.pin_sets for rule in _RULES for finding in rule(pin_set, policy, around)]
    return [*_unlisted(policy), *found, *_shared(policy)]


def _unlisted(policy: Policy) -> Iterator[Finding]:
    if policy.unlisted is Unlisted.ALLOW:
        yield Finding(
            "unlisted",
            Weight.NOTE,
            "unlisted",
            "hosts that no rule names are reached without pins",
            'say unlisted = "deny" if the app talks to listed hosts only',
        )


def _exclusion(pin_set: PinSet, _policy: Policy, _around: Surroundings) -> Iterator[Finding]:
    if pin_set.mode is Mode.OFF:
        yield Finding(
            "off",
            Weight.NOTE,
            pin_set.name,
            "is excluded: any key is accepted",
            "delete the rule when it has pins again",
        )


def _report_only(pin_set: PinSet, _policy: Policy, _around: Surroundings) -> Iterator[Finding]:
    if pin_set.mode is Mode.REPORT_ONLY:
        yield Finding(
            "report-only",
            Weight.NOTE,
            pin_set.name,
            "reports only: nothing is protected yet",
            'say mode = "enforce" once no reports come in',
        )


def _single_pin(pin_set: PinSet, _policy: Policy, _around: Surroundings) -> Iterator[Finding]:
    for requirement in pin_set.requirements:
        if pin_set.mode is not Mode.OFF and len(requirement.pins) < ENOUGH_PINS:
            yield Finding(
                "single-pin",
                Weight.RISK,
                pin_set.name,
                f"{requirement.role.value} has one pin: when its key is changed or lost, every installed app is cut off",
                f"make a backup: pinset backup {pin_set.patterns[0].base} --policy POLICY",
            )


def _placeholder(pin_set: PinSet, _policy: Policy, _around: Surroundings) -> Iterator[Finding]:
    for pin in pin_set.all_pins:
        if Pin(PinKind.SPKI, pin.digest) in _EXAMPLES:
            yield Finding(
                "example-pin",
                Weight.RISK,
                pin_set.name,
                f"{pin} is the example of a tutorial: no server of yours holds its key",
                "put in the pin of a key that you hold: pinset pin FILE, or pinset fetch HOST",
            )


def _whole_certificates(pin_set: PinSet, _policy: Policy, _around: Surroundings) -> Iterator[Finding]:
    if pin_set.certificate_pins:
        yield Finding(
            "certificate-pins",
            Weight.RISK,
            pin_set.name,
            "pins whole certificates: each renewal, even with the same key, needs a new policy first",
            "pin keys: pinset pin FILE",
        )


def _leaf_only(pin_set: PinSet, _policy: Policy, around: Surroundings) -> Iterator[Finding]:
    lives = [
        certificate.not_after - certificate.not_before
        for certificate in around.certificates
        if Pin(PinKind.SPKI, certificate.spki_sha256) in pin_set.all_pins
    ]
    if lives and max(lives) <= _SHORT_LIFE:
        yield Finding(
            "leaf-only",
            Weight.RISK,
            pin_set.name,
            f"pins only keys of certificates that live {round(max(lives) / timedelta(days=1))} days: if renewal makes a new key, pins break as"
            " often",
            "keep the key when the certificate is renewed, or pin the key of the issuing CA as well",
        )
    elif not lives and [requirement.role for requirement in pin_set.requirements] == [Role.LEAF]:
        yield Finding(
            "leaf-only",
            Weight.NOTE,
            pin_set.name,
            "pins only keys of leaves: every new key needs a new policy before it is in service",
            "keep the key when the certificate is renewed; give the certificate with --chain to see how often that is",
        )


def _expiry(pin_set: PinSet, _policy: Policy, around: Surroundings) -> Iterator[Finding]:
    if pin_set.expires is None or pin_set.mode is Mode.OFF:
        return
    left = pin_set.expires - around.now
    day = pin_set.expires.date()
    if left <= timedelta():
        yield Finding("expired", Weight.RISK, pin_set.name, f"has expired on {day}: {_AFTER[pin_set.on_expiry]}", _SHIP)
    elif left <= _SOON:
        reason = f"expires on {day}, in {left.days} days: then {_AFTER[pin_set.on_expiry]}"
        yield Finding("expires-soon", Weight.RISK, pin_set.name, reason, _SHIP)
    if not pin_set.rotation:
        yield Finding(
            "no-rotation-note",
            Weight.RISK,
            pin_set.name,
            "expires, and no rotation note says who ships the next pins, and when",
            'add rotation = "who, when, with which release"',
        )
    if pin_set.on_expiry is OnExpiry.UNPIN:
        yield Finding(
            "fails-open",
            Weight.NOTE,
            pin_set.name,
            "is not enforced after its expiry, so whoever sets the clock forward removes the pins",
            'say on_expiry = "block" or "enforce" where an outage is better than that',
        )


_SHIP = "ship a policy with fresh pins and a later expires; pinset plan POLICY shows by when"
_AFTER = {
    OnExpiry.UNPIN: "any key is accepted",
    OnExpiry.BLOCK: "every connection is refused",
    OnExpiry.ENFORCE: "the pins are enforced all the same",
    None: "",
}


def _shared(policy: Policy) -> Iterator[Finding]:
    holders: dict[Pin, list[PinSet]] = {}
    for pin_set in policy.pin_sets:
        for pin in dict.fromkeys(pin_set.all_pins):
            holders.setdefault(pin, []).append(pin_set)
    for pin, (first, *rest) in holders.items():
        others = [other.name for other in rest if not _is_family(first, other)]
        if others and Pin(PinKind.SPKI, pin.digest) not in _EXAMPLES:
            yield Finding(
                "shared-pin",
                Weight.NOTE,
                first.name,
                f"{pin} is a pin of {_named(others)} as well: one lost key is all of them",
                "give each host a key of its own, unless it is the key of a CA",
            )


def _is_family(first: PinSet, second: PinSet) -> bool:
    one, other = first.patterns[0].base, second.patterns[0].base
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _public_suffix(pin_set: PinSet, _policy: Policy, around: Surroundings) -> Iterator[Finding]:
    if around.is_public_suffix is None:
        return
    for pattern in pin_set.patterns:
        if pattern.scope is not Scope.HOST and around.is_public_suffix(pattern.base):
            yield Finding(
                "public-suffix",
                Weight.RISK,
                pin_set.name,
                f"{pattern} covers hosts of strangers: anybody can register a name below {pattern.base}",
                "name your own domain",
            )


def _redundant(pin_set: PinSet, policy: Policy, _around: Surroundings) -> Iterator[Finding]:
    pattern = pin_set.patterns[0]
    above = parent(pattern.base)
    if [each.scope for each in pin_set.patterns] != [Scope.HOST] or is_address(pattern.base) or not above:
        return
    # What applies to a neighbour that no rule names would apply to this host without its own rule.
    broader = policy.find(f"pinset-probe.{above}")
    if broader is not None and _says_the_same(pin_set, broader):
        yield Finding(
            "redundant",
            Weight.NOTE,
            pin_set.name,
            f"says what {broader.name} says already",
            "delete the rule, so that a change has one place",
        )


def _says_the_same(one: PinSet, other: PinSet) -> bool:
    return (one.requirements, one.mode, one.expires, one.on_expiry) == (
        other.requirements,
        other.mode,
        other.expires,
        other.on_expiry,
    )


_RULES: Iterable[Callable[[PinSet, Policy, Surroundings], Iterator[Finding]]] = (
    _exclusion,
    _report_only,
    _single_pin,
    _placeholder,
    _whole_certificates,
    _leaf_only,
    _expiry,
    _public_suffix,
    _redundant,
)
