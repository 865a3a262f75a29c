"""
TrustKit's configuration for iOS and macOS: ``TSKConfiguration`` in an ``Info.plist``, or the dictionary alone.

A name covers itself or any depth below; a pin is the key of any certificate of the verified chain; pins end at the
beginning of a day in UTC. To enforce, two distinct pins. It says what a policy says but for roles and exact instants.
"""

from __future__ import annotations

from datetime import datetime

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._hosts import Scope, is_address, parent
from pinset._pins import Pin
from pinset._policy import ENOUGH_PINS, Mode, PinSet, Policy, did_you_mean
from pinset.formats._differences import (
    bare_digest,
    keep_any_pins,
    keep_day,
    note_rotation,
    note_unlisted,
    pin_from_bare,
    read_day,
)
from pinset.formats._domains import (
    Cover,
    Domain,
    canonical_domain,
    cover_any_depth,
    policy_from_domains,
    refuse_doubles,
)
from pinset.formats._plist import Value, find_dictionary, read_plist, write_plist
from pinset.formats.exchange import Effect, Exported, Imported, Loss

_CONFIGURATION, _DOMAINS = "TSKConfiguration", "TSKPinnedDomains"
_HASHES, _SUBDOMAINS, _ENFORCE = "TSKPublicKeyHashes", "TSKIncludeSubdomains", "TSKEnforcePinning"
_EXPIRATION, _EXCLUDE = "TSKExpirationDate", "TSKExcludeSubdomainFromParentPolicy"
_REPORTS, _NO_DEFAULT_REPORTS = "TSKReportUris", "TSKDisableDefaultReportUri"
_IGNORED = {_REPORTS, _NO_DEFAULT_REPORTS, "TSKPublicKeyAlgorithms", "TSKAdditionalTrustAnchors"}
_KNOWN = (_HASHES, _SUBDOMAINS, _ENFORCE, _EXPIRATION, _EXCLUDE, *sorted(_IGNORED))
_USER_ANCHORS = "TSKIgnorePinningForUserDefinedTrustAnchors"


def read_trustkit(data: str | bytes, *, source: str = "") -> Imported:
    """
    Read TrustKit's configuration from a property list.

    Args:
        data: The property list, XML.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault and its line.
    """
    return _Reader(source).read(read_plist(data, source=source))


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._faults: list[Fault] = []
        self._losses: list[Loss] = []

    def read(self, root: Value) -> Imported:
        named = find_dictionary(root, _CONFIGURATION, _DOMAINS, source=self._source)
        domains = [made for name, value in named.items() if (made := self._domain(name, value))]
        if not named:
            self._faults.append(Fault(f"line {root.line}", f"{_DOMAINS} is empty"))
        self._note_user_anchors(root)
        self._check_exclusions(domains)
        return policy_from_domains(domains, self._faults, self._losses, source=self._source)

    def _domain(self, name: str, value: Value) -> Domain | None:
        table = value.content
        if not isinstance(table, dict):
            self._fault(value, f"{name} is {value.kind}, not a dictionary")
            return None
        for key, item in table.items():
            if key not in _KNOWN:
                self._fault(item, f"{key} is not a known key", did_you_mean(key, _KNOWN))
            elif key == _REPORTS:
                self._lose(item, "report URIs are not part of a policy; give the client a report sink")
        try:
            host = canonical_domain(name)
        except HostError as error:
            self._fault(value, str(error))
            return None
        place = f"line {value.line}"
        if self._flag(table, _EXCLUDE, default=False):
            if set(table) != {_EXCLUDE}:
                self._fault(value, f"{_EXCLUDE} must be the only key of {name}")
            return Domain(place=place, name=host, below=False)
        enforced = self._flag(table, _ENFORCE, default=True)
        return Domain(
            place=place,
            name=host,
            below=self._flag(table, _SUBDOMAINS, default=False),
            pins=self._hashes(name, value, table),
            mode=Mode.ENFORCE if enforced else Mode.REPORT_ONLY,
            expires=self._expiration(table),
        )

    def _hashes(self, name: str, domain: Value, table: dict[str, Value]) -> tuple[Pin, ...]:
        value = table.get(_HASHES)
        if value is None or not isinstance(value.content, list) or not value.content:
            self._fault(value or domain, f"{name} has no list {_HASHES}")
            return ()
        pins: list[Pin] = []
        for item in value.content:
            if not isinstance(item.content, str):
                self._fault(item, f"{item.kind} where the base64 of a pin was expected")
                continue
            try:
                pins.append(pin_from_bare(item.content))
            except PinError as error:
                self._fault(item, str(error))
        return tuple(pins)

    def _expiration(self, table: dict[str, Value]) -> datetime | None:
        if (value := table.get(_EXPIRATION)) is None:
            return None
        try:
            return read_day(value.content if isinstance(value.content, str) else "")
        except ValueError:
            # TrustKit drops a date that it cannot read, and the pins never end.
            self._fault(value, f"{_EXPIRATION} is not a day", "write 2027-01-31")
        return None

    def _flag(self, table: dict[str, Value], key: str, *, default: bool) -> bool:
        if (value := table.get(key)) is None:
            return default
        if not isinstance(value.content, bool):
            self._fault(value, f"{key} is {value.kind}, not <true/> or <false/>")
            return default
        return value.content

    def _note_user_anchors(self, root: Value) -> None:
        assert isinstance(root.content, dict)  # or find_dictionary would have refused
        outer = root.content.get(_CONFIGURATION, root)
        table = outer.content if isinstance(outer.content, dict) else {}
        if self._flag(table, _USER_ANCHORS, default=True):
            what = "on macOS, chains of a CA that the user added pass without pins there; they do not here"
            place = f"line {table[_USER_ANCHORS].line if _USER_ANCHORS in table else outer.line}"
            self._losses.append(Loss(place, what, Effect.TIGHTENS))

    def _check_exclusions(self, domains: list[Domain]) -> None:
        covering = {domain.name for domain in domains if domain.below and domain.pins}
        for domain in domains:
            name = parent(domain.name)
            while name and name not in covering:
                name = parent(name)
            if not domain.pins and not name and not self._faults:
                reason = f"{domain.name} is excluded, and no pinned domain above it includes subdomains"
                self._faults.append(Fault(domain.place, reason))

    def _lose(self, value: Value, what: str) -> None:
        self._losses.append(Loss(f"line {value.line}", what))

    def _fault(self, value: Value, reason: str, suggestion: str = "") -> None:
        self._faults.append(Fault(f"line {value.line}", reason, suggestion))


def write_trustkit(policy: Policy) -> Exported:
    """
    Write *policy* as ``TSKConfiguration``, with no report to TrustKit's maker and no way round for user-added CAs.

    Raises:
        PolicyError: A rule has nothing that the format could say.
    """
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_unlisted(policy, losses)
    domains: dict[str, object] = {}
    covers = []
    for pin_set in policy.pin_sets:
        note_rotation(pin_set, losses)
        if pin_set.mode is Mode.OFF:
            cover = _excluded(policy, pin_set, losses, faults)
            domains[cover.name] = {_EXCLUDE: True}
        else:
            cover = cover_any_depth(policy, pin_set, losses)
            domains[cover.name] = _settings(cover, pin_set, losses, faults)
        covers.append((cover, pin_set))
    refuse_doubles(covers, faults)
    if faults:
        raise PolicyError(faults, source="the conversion to trustkit")
    settings = {"TSKSwizzleNetworkDelegates": False, _USER_ANCHORS: False, _DOMAINS: domains}
    return Exported(write_plist({_CONFIGURATION: settings}), tuple(losses))


def _excluded(policy: Policy, pin_set: PinSet, losses: list[Loss], faults: list[Fault]) -> Cover:
    cover = cover_any_depth(policy, pin_set, [])
    if [pattern.scope for pattern in pin_set.patterns] == [Scope.LABEL]:
        faults.append(Fault(pin_set.name, "an exclusion is of one host there", "name the hosts"))
    elif cover.below:
        losses.append(Loss(pin_set.name, "only the host itself is excluded there", Effect.TIGHTENS))
    return Cover(cover.name, below=False)


def _settings(cover: Cover, pin_set: PinSet, losses: list[Loss], faults: list[Fault]) -> dict[str, object]:
    if is_address(cover.name) or "." not in cover.name:
        reason = "TrustKit pins names below a public suffix only"
        faults.append(Fault(pin_set.name, reason, "leave the host out"))
    pins = keep_any_pins(pin_set, losses, faults)
    if pins and pin_set.mode is Mode.ENFORCE and len(pins) < ENOUGH_PINS:
        faults.append(Fault(pin_set.name, "TrustKit enforces two pins or more", "add the pin of a backup key"))
    settings: dict[str, object] = {
        _SUBDOMAINS: cover.below,
        _ENFORCE: pin_set.mode is Mode.ENFORCE,
        _HASHES: [bare_digest(pin) for pin in pins],
        _NO_DEFAULT_REPORTS: True,
    }
    day = keep_day(pin_set, losses)
    return settings if day is None else settings | {_EXPIRATION: day.isoformat()}
