"""
Apple's ``NSPinnedDomains`` (iOS 14, macOS 11), in an ``Info.plist`` or alone.

A pin is the key of the leaf or of a CA; where a domain has both lists, both must match, as here. Subdomains are those of
one more label. There is no expiry, no report-only mode and no exclusion.
"""

from __future__ import annotations

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._pins import Pin
from pinset._policy import Mode, PinSet, Policy, Role, Subdomains, Unlisted, did_you_mean
from pinset.formats._differences import (
    bare_digest,
    keep_roles,
    lose_expiry,
    mode_becomes_enforced,
    note_rotation,
    note_unlisted,
    pin_from_bare,
)
from pinset.formats._domains import canonical_domain, cover_one_label, refuse_doubles
from pinset.formats._plist import Value, find_dictionary, read_plist, write_plist
from pinset.formats.exchange import NOTHING_GIVEN, Circumstances, Effect, Exported, Imported, Loss

_SECURITY, _DOMAINS = "NSAppTransportSecurity", "NSPinnedDomains"
_SUBDOMAINS, _DIGEST = "NSIncludesSubdomains", "SPKI-SHA256-BASE64"
_NO_EXCLUSION = "an exclusion does not exist there: a host that a broader rule covers has that rule's pins"
_LISTS = {"NSPinnedCAIdentities": Role.CA, "NSPinnedLeafIdentities": Role.LEAF}


def read_apple(data: str | bytes, *, source: str = "") -> Imported:
    """
    Read ``NSPinnedDomains`` from a property list: an ``Info.plist``, its security dictionary, or the domains alone.

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
        self._lines: dict[str, int] = {}

    def read(self, root: Value) -> Imported:
        domains = find_dictionary(root, _SECURITY, _DOMAINS, source=self._source)
        pin_sets = [made for name, value in domains.items() if (made := self._pin_set(name, value))]
        if not domains:
            self._faults.append(Fault(f"line {root.line}", f"{_DOMAINS} is empty"))
        if self._faults:
            raise PolicyError(self._faults, source=self._source)
        return Imported(Policy(tuple(pin_sets), Unlisted.ALLOW), tuple(self._losses))

    def _pin_set(self, name: str, value: Value) -> PinSet | None:
        before = len(self._faults)
        host = self._name(name, value.line)
        if not isinstance(value.content, dict):
            self._fault(value, f"{name} is {value.kind}, not a dictionary")
            return None
        below, lists = False, dict[Role, tuple[Pin, ...]]()
        for key, item in value.content.items():
            if key == _SUBDOMAINS and isinstance(item.content, bool):
                below = item.content
            elif key in _LISTS:
                lists[_LISTS[key]] = self._identities(key, item)
            else:
                reason = f"{key} is {item.kind}" if key == _SUBDOMAINS else f"{key} is not a known key"
                self._fault(item, reason, did_you_mean(key, (*_LISTS, _SUBDOMAINS)))
        if not lists and len(self._faults) == before:
            self._fault(value, f"{name} pins nothing", f"give {' or '.join(_LISTS)}")
        if len(self._faults) > before:
            return None
        is_single = any(len(set(pins)) == 1 for pins in lists.values())
        if is_single:
            what = f"{name} has a list of one pin and no backup; allow_single_pin accepts that"
            self._losses.append(Loss(f"line {value.line}", what))
        try:
            return PinSet(
                name=host,
                subdomains=Subdomains.ONE if below else Subdomains.NONE,
                leaf_pins=lists.get(Role.LEAF, ()),
                ca_pins=lists.get(Role.CA, ()),
                allow_single_pin=is_single,
            )
        except PolicyError as error:
            place = f"line {value.line}"
            self._faults += [Fault(f"{place}, {fault.path}", fault.reason, fault.suggestion) for fault in error.faults]
        return None

    def _name(self, name: str, line: int) -> str:
        try:
            host = canonical_domain(name)
        except HostError as error:
            self._faults.append(Fault(f"line {line}", str(error)))
            return ""
        if (first := self._lines.setdefault(host, line)) != line:
            self._faults.append(Fault(f"line {line}", f"{host} already stands on line {first}", "merge the two"))
        return host

    def _identities(self, key: str, value: Value) -> tuple[Pin, ...]:
        pins: list[Pin] = []
        if not isinstance(value.content, list) or not value.content:
            self._fault(value, f"{key} is not a list of identities" if value.content else f"{key} is empty")
            return ()
        for item in value.content:
            table = item.content if isinstance(item.content, dict) else {}
            text = table[_DIGEST].content if set(table) == {_DIGEST} else None
            if not isinstance(text, str):
                self._fault(item, f"an identity is a dictionary with the text {_DIGEST} alone")
                continue
            try:
                pins.append(pin_from_bare(text))
            except PinError as error:
                self._fault(item, str(error))
        return tuple(pins)

    def _fault(self, value: Value, reason: str, suggestion: str = "") -> None:
        self._faults.append(Fault(f"line {value.line}", reason, suggestion))


def write_apple(policy: Policy, circumstances: Circumstances = NOTHING_GIVEN) -> Exported:
    """
    Write *policy* as ``NSPinnedDomains``, in a property list to be merged into an ``Info.plist``.

    Args:
        policy: The policy.
        circumstances: Says of the keys in ``pins`` whether they are of leaves or of CAs.

    Raises:
        PolicyError: A rule has nothing that the format could say, or the role of a key is not known.
    """
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_unlisted(policy, losses)
    domains: dict[str, object] = {}
    covers = []
    for pin_set in policy.pin_sets:
        if pin_set.mode is Mode.OFF:
            losses.append(Loss(pin_set.name, _NO_EXCLUSION, Effect.TIGHTENS))
            continue
        cover = cover_one_label(policy, pin_set, losses)
        covers.append((cover, pin_set))
        entry: dict[str, object] = {_SUBDOMAINS: True} if cover.below else {}
        domains[cover.name] = entry | _identities(pin_set, circumstances, losses, faults)
    refuse_doubles(covers, faults)
    if faults:
        raise PolicyError(faults, source="the conversion to apple")
    return Exported(write_plist({_SECURITY: {_DOMAINS: domains}}), tuple(losses))


def _identities(
    pin_set: PinSet, circumstances: Circumstances, losses: list[Loss], faults: list[Fault]
) -> dict[str, object]:
    note_rotation(pin_set, losses)
    mode_becomes_enforced(pin_set, losses)
    lose_expiry(pin_set, losses)
    lists = keep_roles(pin_set, circumstances, losses, faults)
    return {key: [{_DIGEST: bare_digest(pin)} for pin in lists[role]] for key, role in _LISTS.items() if role in lists}
