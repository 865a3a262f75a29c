"""
`PinSet` and `Policy`: which keys a host may hold, refused at construction when they could only mislead.

Rules of this module:

1. Values are immutable. A changed policy is another policy, and a connection can tell which one let it in.
2. All faults are reported at once, each with its place. Nothing is half-applied.
3. The most specific rule *replaces* the broader ones: the longer base first; at one base the host, then ``**.``, and
   before the next shorter base ``*.``. A rule that does not cover a host never changes what applies to it.
4. Lists are OR inside and AND across: ``leaf_pins`` and ``ca_pins`` together mean both.
5. A look-up costs by the labels of the host, not by the hosts of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._hosts import HostPattern, Scope, canonical_host, is_address, parent
from pinset._pins import Pin, PinKind

ENOUGH_PINS = 2
"""How many pins a list needs so that the key in service can be replaced: its own, and that of a backup key."""
_BACKUP = "add the pin of a backup key that is not in service, or say allow_single_pin = true"


class Mode(StrEnum):
    """
    What a mismatch does: ``enforce`` refuses, ``report-only`` reports and lets through, ``off`` excludes the host.
    """

    ENFORCE = "enforce"
    REPORT_ONLY = "report-only"
    OFF = "off"


class OnExpiry(StrEnum):
    """
    What an expired pin set does: ``unpin`` stops enforcing, ``block`` refuses everything, ``enforce`` goes on.
    """

    UNPIN = "unpin"
    BLOCK = "block"
    ENFORCE = "enforce"


class Subdomains(StrEnum):
    """
    What a pin set covers below its host: nothing, one label (as Apple does), or any depth.
    """

    NONE = "none"
    ONE = "one"
    ALL = "all"


class Unlisted(StrEnum):
    """
    What happens to a host that no rule names.
    """

    DENY = "deny"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinSet:
    """
    The pins of one host pattern, with mode and expiry (RFC 7469 section 2.1, Android's ``pin-set``).

    Attributes:
        name: A host, or a pattern ``*.host`` or ``**.host``.
        subdomains: What is covered below a plain host; a pattern says so itself.
        pins: Any certificate of the verified chain must have one of these keys.
        leaf_pins: The server's own certificate must have one of these keys.
        ca_pins: A certificate above the leaf must have one of these keys.
        certificate_pins: Any certificate of the verified chain must be one of these.
        mode: Enforced, reported only, or switched off.
        expires: From this instant on, *on_expiry* applies. Aware; None for never.
        on_expiry: Required with *expires*, refused without.
        rotation: For people: how and when the keys change.
        allow_single_pin: Accept a list without a backup pin.

    Pins may be given as text; they are kept as `Pin`, without duplicates.

    Raises:
        PolicyError: With every fault.
    """

    name: str
    pins: Sequence[Pin | str] = ()
    leaf_pins: Sequence[Pin | str] = ()
    ca_pins: Sequence[Pin | str] = ()
    certificate_pins: Sequence[Pin | str] = ()
    subdomains: Subdomains = Subdomains.NONE
    mode: Mode = Mode.ENFORCE
    expires: datetime | None = None
    on_expiry: OnExpiry | None = None
    rotation: str = ""
    allow_single_pin: bool = False
    patterns: tuple[HostPattern, ...] = field(init=False, repr=False, compare=False)
    requirements: tuple[Requirement, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        put = object.__setattr__  # the one moment at which a frozen value is still being made
        put(self, "patterns", self._read_patterns(faults))
        requirements: list[Requirement] = []
        for role in Role:
            pins = _read_pins(getattr(self, role.value), role, faults)
            put(self, role.value, pins)
            if pins:
                requirements.append(Requirement(role, pins))
        put(self, "requirements", tuple(requirements))
        self._read_choices(faults)
        self._check_pins(faults)
        self._check_expiry(faults)
        if faults:
            place = f'"{self.name}"'
            raise PolicyError([Fault(f"{place}.{fault.path}", fault.reason, fault.suggestion) for fault in faults])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_pin_set, ({name: getattr(self, name) for name in PIN_SET_FIELDS},))

    @property
    def all_pins(self) -> tuple[Pin, ...]:
        """
        The pins of every list, in the order of the lists.
        """
        return tuple(pin for requirement in self.requirements for pin in requirement.pins)

    def _read_patterns(self, faults: list[Fault]) -> tuple[HostPattern, ...]:
        if not isinstance(self.name, str):
            faults.append(Fault("name", f"{self.name!r} is not a text", "put it in quotes"))
            return ()
        try:
            pattern = HostPattern.parse(self.name)
        except HostError as error:
            faults.append(Fault("name", str(error)))
            return ()
        if self.subdomains == Subdomains.NONE:
            return (pattern,)
        if pattern.scope is not Scope.HOST:
            faults.append(
                Fault("subdomains", "the name is a pattern and says by itself what it covers", "leave it out")
            )
        elif is_address(pattern.base):
            faults.append(Fault("subdomains", "an IP address has no subdomains", "leave it out"))
        if self.subdomains == Subdomains.ALL:
            return (HostPattern(pattern.base, Scope.TREE),)
        return (pattern, HostPattern(pattern.base, Scope.LABEL))

    def _read_choices(self, faults: list[Fault]) -> None:
        for name, choices in (("subdomains", Subdomains), ("mode", Mode), ("on_expiry", OnExpiry)):
            value = getattr(self, name)
            if value is None and name == "on_expiry":
                continue
            try:
                object.__setattr__(self, name, choices(value))
            except ValueError:
                faults.append(not_one_of(name, value, choices))
        if not isinstance(self.rotation, str):
            faults.append(Fault("rotation", f"{self.rotation!r} is not a text", "put it in quotes"))
        if not isinstance(self.allow_single_pin, bool):
            faults.append(Fault("allow_single_pin", f"{self.allow_single_pin!r} is not true or false"))

    def _check_pins(self, faults: list[Fault]) -> None:
        if self.mode == Mode.OFF:
            return
        if not self.requirements and not any(fault.path.startswith(tuple(Role)) for fault in faults):
            faults.append(Fault("pins", "no pins are given", 'to exclude a host from a broader rule, say mode = "off"'))
        if self.mode != Mode.ENFORCE or self.allow_single_pin:
            return
        for requirement in self.requirements:
            if len(requirement.pins) < ENOUGH_PINS:
                reason = "only one distinct pin: the next key change takes the app down"
                faults.append(Fault(requirement.role.value, reason, _BACKUP))

    def _check_expiry(self, faults: list[Fault]) -> None:
        if self.expires is None:
            if isinstance(self.on_expiry, OnExpiry):
                faults.append(Fault("on_expiry", "there is no expires for it to apply to"))
            return
        if not isinstance(self.expires, datetime) or self.expires.tzinfo is None:
            reason = f"{self.expires!s} is not an instant: a date and a time with an offset"
            faults.append(Fault("expires", reason, "write 2027-01-31T00:00:00Z"))
        if self.on_expiry is None:
            faults.append(Fault("on_expiry", "expires needs it: what happens then?", '"unpin", "block" or "enforce"'))


PIN_SET_FIELDS = (
    "name", "subdomains", "pins", "leaf_pins", "ca_pins", "certificate_pins",
    "mode", "expires", "on_expiry", "rotation", "allow_single_pin",
)  # fmt: skip


def _rebuild_pin_set(fields: Mapping[str, object]) -> PinSet:
    return PinSet(**fields)  # type: ignore[arg-type]


class Role(StrEnum):
    """
    Where in the verified chain a list of pins must match; the value is the name of the list.
    """

    ANY = "pins"
    LEAF = "leaf_pins"
    CA = "ca_pins"
    CERTIFICATE = "certificate_pins"

    @property
    def kind(self) -> PinKind:
        """
        What the pins of such a list are digests of.
        """
        return PinKind.CERTIFICATE if self is Role.CERTIFICATE else PinKind.SPKI


@dataclass(frozen=True, slots=True)
class Requirement:
    """
    One non-empty list of a pin set: at least one of *pins* must be found where *role* says.
    """

    role: Role
    pins: tuple[Pin, ...]


def _read_pins(values: Sequence[Pin | str], role: Role, faults: list[Fault]) -> tuple[Pin, ...]:
    """The distinct pins of a list, in order."""
    if not isinstance(values, (list, tuple)):
        faults.append(Fault(role.value, f"{values!r} is not a list", "put it in brackets"))
        return ()
    pins: dict[Pin, None] = {}
    for index, value in enumerate(values):
        try:
            pin = value if isinstance(value, Pin) else Pin.parse(_text(value), kind=role.kind)
        except PinError as error:
            faults.append(Fault(f"{role.value}[{index}]", str(error)))
            continue
        if pin.kind is not role.kind:
            faults.append(Fault(f"{role.value}[{index}]", f"is a {pin.kind} pin, and the list holds {role.kind} pins"))
        pins[pin] = None
    return tuple(pins)


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """
    A suggestion for a misspelt word; empty when nothing is near.
    """
    import difflib  # noqa: PLC0415 - only for people who misspelt something

    near = difflib.get_close_matches(str(word), list(choices), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def not_one_of(path: str, value: object, choices: Iterable[str]) -> Fault:
    """
    The fault of a value that is none of the words it may be.
    """
    known = ", ".join(f'"{choice}"' for choice in choices)
    return Fault(path, f"{value!r} is not one of {known}", did_you_mean(value, choices))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PinError(f"{value!r} is not a text")
    return value


# What the host, ``*.`` and ``**.`` say at one base, side by side: among many hosts a look-up costs the memory it touches.
_Rules = tuple[PinSet | None, PinSet | None, PinSet | None]
_NO_RULES: _Rules = (None, None, None)


@dataclass(frozen=True, slots=True)
class Policy:
    """
    The immutable table of pin sets.

    Attributes:
        pin_sets: At least one, in the order they were given.
        unlisted: What happens to hosts that no pin set covers.

    Raises:
        PolicyError: With every fault: nothing listed, a host listed twice, an exclusion under no rule.
    """

    pin_sets: Sequence[PinSet]
    unlisted: Unlisted = Unlisted.DENY
    _rules: dict[str, _Rules] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        put = object.__setattr__
        put(self, "pin_sets", tuple(self.pin_sets))
        hosts, labels, trees = tabulate(enumerate(self.pin_sets), faults).values()  # in the order of Scope
        bases = hosts | labels | trees
        put(self, "_rules", {base: (hosts.get(base), labels.get(base), trees.get(base)) for base in bases})
        if not self.pin_sets:
            faults.append(Fault("host", "no host is listed", "a policy without hosts pins nothing"))
        try:
            put(self, "unlisted", Unlisted(self.unlisted))
        except ValueError:
            faults.append(not_one_of("unlisted", self.unlisted, Unlisted))
        faults.extend(
            Fault(
                f"{_place(index, pin_set)}.mode",
                "excludes hosts that no broader rule covers",
                'leave the host out, and say unlisted = "allow" if it may be reached',
            )
            for index, pin_set in enumerate(self.pin_sets)
            if pin_set.mode is Mode.OFF and not all(self._covers(pattern) for pattern in pin_set.patterns)
        )
        if faults:
            raise PolicyError(faults)

    def __reduce__(self) -> tuple[type[Policy], tuple[Sequence[PinSet], Unlisted]]:
        return (type(self), (self.pin_sets, self.unlisted))

    @classmethod
    def from_mapping(cls, pins: Mapping[str, Sequence[Pin | str]], *, unlisted: Unlisted = Unlisted.DENY) -> Policy:
        """
        The short form: host patterns and their public-key pins, enforced, without expiry.

        Args:
            pins: Pins by host pattern, at least two for each.
            unlisted: What happens to hosts that no pattern covers.

        Raises:
            PolicyError: With every fault of every host.
        """
        pin_sets: list[PinSet] = []
        faults: list[Fault] = []
        for name, values in pins.items():
            try:
                pin_sets.append(PinSet(name=name, pins=values))
            except PolicyError as error:
                faults.extend(error.faults)
        if faults:
            raise PolicyError(faults)
        return cls(tuple(pin_sets), unlisted)

    def find(self, host: str) -> PinSet | None:
        """
        The pin set that applies to *host*: the most specific one that covers it.

        Args:
            host: A host name or IP address in any spelling.

        Raises:
            HostError: *host* has no canonical form.
        """
        # No address is ever below a star (`HostPattern.parse`), so its tail finds nothing.
        base = canonical_host(host)
        at_host, _, tree = self._rules.get(base, _NO_RULES)
        if found := at_host or tree:
            return found
        base = parent(base)
        _, label, tree = self._rules.get(base, _NO_RULES)
        return label or tree or self._find_tree(parent(base))

    def _find_tree(self, base: str) -> PinSet | None:
        """The pin set of the longest ``**.`` pattern at *base* or above."""
        while base:
            if found := self._rules.get(base, _NO_RULES)[2]:
                return found
            base = parent(base)
        return None

    def _covers(self, pattern: HostPattern) -> bool:
        """Whether a rule with pins would apply to all that *pattern* covers if its own rule were absent."""
        _, _, tree = self._rules[pattern.base]
        _, label, _ = self._rules.get(parent(pattern.base), _NO_RULES)
        covering = {Scope.HOST: tree or label, Scope.LABEL: tree, Scope.TREE: None}[pattern.scope]
        nearest = covering or self._find_tree(parent(pattern.base))
        return nearest is not None and nearest.mode is not Mode.OFF


def tabulate(numbered: Iterable[tuple[int, PinSet]], faults: list[Fault]) -> dict[Scope, dict[str, PinSet]]:
    """
    The pin sets by what they cover and by base; a pattern that is listed twice is added to *faults*.

    Args:
        numbered: Pin sets with their place in the document.
        faults: Grows.
    """
    tables: dict[Scope, dict[str, PinSet]] = {scope: {} for scope in Scope}
    for index, pin_set in numbered:
        for pattern in pin_set.patterns:
            if tables[pattern.scope].setdefault(pattern.base, pin_set) is not pin_set:
                faults.append(Fault(_place(index, pin_set), f"{pattern} is already listed", "merge the two"))  # noqa: PERF401
    return tables


def _place(index: int, pin_set: PinSet) -> str:
    return f'host[{index}]."{pin_set.name}"'
