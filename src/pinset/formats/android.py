"""
Android's ``network_security_config.xml``, and the same file with TrustKit-Android's element.

The grammar is that of AOSP's ``XmlConfigSource``: a ``domain-config`` has domains, at most one ``pin-set``, and may hold
others, which inherit its pins. Elements that Android skips are skipped here, and reported. Pins are the key of any
certificate of the verified chain and end at the beginning of a day, in the time zone of the device.
"""

from __future__ import annotations

from datetime import datetime
from xml.sax.saxutils import escape, quoteattr

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._pins import Pin
from pinset._policy import Mode, PinSet, Policy
from pinset.formats._differences import (
    bare_digest,
    keep_any_pins,
    keep_day,
    mode_becomes_enforced,
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
from pinset.formats._xml import Element, read_xml
from pinset.formats.exchange import Exported, Imported, Loss

_ROOT = "network-security-config"
_OUTSIDE = {
    "trust-anchors": "trust anchors are not part of a policy; give the client an SSL context",
    "certificateTransparency": "certificate transparency is not checked",
    "debug-overrides": "overrides for debug builds are left out",
    "base-config": "what holds for hosts without pins is left out",
}
_BOOLEANS = {"true": True, "false": False}


def read_android(data: str | bytes, *, source: str = "") -> Imported:
    """
    Read a ``network_security_config.xml`` as Android 7 and later enforces it.

    Args:
        data: The file.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault and its line.
    """
    return _Reader(source, with_trustkit=False).read(data)


def read_trustkit_android(data: str | bytes, *, source: str = "") -> Imported:
    """
    Read the same file as TrustKit-Android does: pins are enforced only where ``enforcePinning`` says so.

    Args:
        data: The file.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault and its line.
    """
    return _Reader(source, with_trustkit=True).read(data)


class _Reader:
    def __init__(self, source: str, *, with_trustkit: bool) -> None:
        self._source, self._with_trustkit = source, with_trustkit
        self._faults: list[Fault] = []
        self._losses: list[Loss] = []
        self._domains: list[Domain] = []

    def read(self, data: str | bytes) -> Imported:
        root = read_xml(data, source=self._source)
        if root.name != _ROOT:
            self._fault(root, f"the root is <{root.name}>, not <{_ROOT}>")
            raise PolicyError(self._faults, source=self._source)
        self._at_most_one(root, "base-config")
        self._at_most_one(root, "debug-overrides")
        for child in root.children:
            if child.name == "domain-config":
                self._domain_config(child, (), None, Mode.REPORT_ONLY if self._with_trustkit else Mode.ENFORCE)
            elif child.name == "base-config":
                self._base_config(child)
            else:
                self._outside(child)
        return policy_from_domains(self._domains, self._faults, self._losses, source=self._source)

    def _base_config(self, element: Element) -> None:
        for child in element.children:
            if child.name in ("domain", "pin-set"):
                self._fault(child, f"<{child.name}> cannot stand in <base-config>", "put it into a <domain-config>")
        self._outside(element)

    def _domain_config(self, element: Element, pins: tuple[Pin, ...], expires: datetime | None, mode: Mode) -> None:
        """Read one configuration, which has what the one around it has unless it says otherwise."""
        self._at_most_one(element, "pin-set")
        if _boolean(element.attributes.get("cleartextTrafficPermitted", "false")) is not False:
            self._lose(element, "cleartext is refused for every host of a policy")
        names: list[Element] = []
        nested: list[Element] = []
        for child in element.children:
            match child.name:
                case "domain":
                    names.append(child)
                case "pin-set":
                    pins, expires = self._pin_set(child)
                case "domain-config":
                    nested.append(child)
                case "trustkit-config":
                    mode = self._trustkit(child)
                case _:
                    self._outside(child)
        if not names:
            self._fault(element, "a <domain-config> needs a <domain>")
        for name in names:
            self._domain(name, pins, expires, mode)
        for child in nested:
            self._domain_config(child, pins, expires, mode)

    def _domain(self, element: Element, pins: tuple[Pin, ...], expires: datetime | None, mode: Mode) -> None:
        below = _boolean(element.attributes.get("includeSubdomains", "false"))
        if below is None:
            self._fault(element, "includeSubdomains is neither true nor false")
        try:
            name = canonical_domain(element.text)
        except HostError as error:
            self._fault(element, str(error))
            return
        self._domains.append(
            Domain(
                place=f"line {element.line}",
                name=name,
                below=bool(below),
                pins=pins,
                mode=mode,
                expires=expires,
                allow_single_pin=True,
            )
        )

    def _pin_set(self, element: Element) -> tuple[tuple[Pin, ...], datetime | None]:
        expires, day = None, element.attributes.get("expiration")
        if day is not None:
            try:
                expires = read_day(day)
            except ValueError:
                self._fault(element, f"expiration {day!r} is not a day", 'write expiration="2027-01-31"')
            else:
                self._lose(element, f"{day} begins at midnight of the device's time zone, and of UTC in a policy")
        pins: list[Pin] = []
        for child in element.children:
            if child.name != "pin":
                self._outside(child)
                continue
            if child.attributes.get("digest", "").lower() != "sha-256":
                self._fault(
                    child, f"digest {child.attributes.get('digest')!r} is not SHA-256", 'write digest="SHA-256"'
                )
            if child.children:
                self._fault(child, "a <pin> holds text only")
            try:
                pins.append(pin_from_bare(child.text))
            except PinError as error:
                self._fault(child, str(error))
        return tuple(pins), expires

    def _trustkit(self, element: Element) -> Mode:
        enforced = _boolean(element.attributes.get("enforcePinning", "false"))
        if enforced is None:
            self._fault(element, "enforcePinning is neither true nor false")
        for child in element.children:
            if child.name == "report-uri":
                self._lose(child, "report URIs are not part of a policy; give the client a report sink")
            else:
                self._outside(child)
        if self._with_trustkit:
            return Mode.ENFORCE if enforced else Mode.REPORT_ONLY
        if not enforced:
            self._lose(
                element, "Android enforces the pins whatever enforcePinning says (as trustkit-android it counts)"
            )
        return Mode.ENFORCE

    def _at_most_one(self, element: Element, name: str) -> None:
        for child in [child for child in element.children if child.name == name][1:]:
            self._fault(child, f"a second <{name}> in one <{element.name}>")

    def _outside(self, element: Element) -> None:
        self._lose(element, _OUTSIDE.get(element.name, f"<{element.name}> is skipped, as Android does"))

    def _lose(self, element: Element, what: str) -> None:
        self._losses.append(Loss(f"line {element.line}", what))

    def _fault(self, element: Element, reason: str, suggestion: str = "") -> None:
        self._faults.append(Fault(f"line {element.line}", reason, suggestion))


def _boolean(text: str) -> bool | None:
    return _BOOLEANS.get(text.strip().lower())


def write_android(policy: Policy) -> Exported:
    """
    Write *policy* as a ``network_security_config.xml``. Cleartext is forbidden for every host in it.

    Raises:
        PolicyError: A rule has nothing that the format could say.
    """
    return _write(policy, with_trustkit=False)


def write_trustkit_android(policy: Policy) -> Exported:
    """
    Write *policy* as a ``network_security_config.xml`` with TrustKit-Android's element, and no report to its maker.

    Raises:
        PolicyError: A rule has nothing that the format could say.
    """
    return _write(policy, with_trustkit=True)


def _write(policy: Policy, *, with_trustkit: bool) -> Exported:
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_unlisted(policy, losses)
    covers = [(cover_any_depth(policy, pin_set, losses), pin_set) for pin_set in policy.pin_sets]
    refuse_doubles(covers, faults)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<{_ROOT}>"]
    for cover, pin_set in covers:
        lines += _domain_config(cover, pin_set, losses, faults, with_trustkit=with_trustkit)
    if faults:
        raise PolicyError(faults, source=f"the conversion to {'trustkit-android' if with_trustkit else 'android'}")
    return Exported("\n".join([*lines, f"</{_ROOT}>", ""]), tuple(losses))


def _domain_config(
    cover: Cover, pin_set: PinSet, losses: list[Loss], faults: list[Fault], *, with_trustkit: bool
) -> list[str]:
    below = str(cover.below).lower()
    lines = [
        '  <domain-config cleartextTrafficPermitted="false">',
        f'    <domain includeSubdomains="{below}">{escape(cover.name)}</domain>',
    ]
    note_rotation(pin_set, losses)
    if pin_set.mode is Mode.OFF:
        return [*lines, "    <pin-set/>", "  </domain-config>"]
    if not with_trustkit:
        mode_becomes_enforced(pin_set, losses)
    day = keep_day(pin_set, losses)
    lines.append("    <pin-set>" if day is None else f"    <pin-set expiration={quoteattr(day.isoformat())}>")
    pins = keep_any_pins(pin_set, losses, faults)
    lines += [f'      <pin digest="SHA-256">{bare_digest(pin)}</pin>' for pin in pins]
    lines.append("    </pin-set>")
    if with_trustkit:
        enforced = str(pin_set.mode is Mode.ENFORCE).lower()
        lines.append(f'    <trustkit-config enforcePinning="{enforced}" disableDefaultReportUri="true"/>')
    return [*lines, "  </domain-config>"]
