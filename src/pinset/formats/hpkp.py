"""
The ``Public-Key-Pins`` header and its report-only sibling (RFC 7469 section 2.1).

Browsers have removed it; servers and collectors still have it in their configuration. It speaks of the host that sent
it, and its pins end ``max-age`` seconds after they were seen, so both are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._hosts import Scope
from pinset._pins import Pin
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Subdomains, Unlisted
from pinset.formats._differences import bare_digest, keep_any_pins, lose_expiry, note_rotation, one_host, pin_exactly
from pinset.formats._domains import canonical_domain, cover_any_depth
from pinset.formats.exchange import MOST_BYTES_OF_A_LINE, Circumstances, Effect, Exported, Imported, Loss, as_text

_NAMES = {"public-key-pins": Mode.ENFORCE, "public-key-pins-report-only": Mode.REPORT_ONLY}
_HEADERS = {Mode.ENFORCE: "Public-Key-Pins", Mode.REPORT_ONLY: "Public-Key-Pins-Report-Only"}
# RFC 7469 section 2.1: directives are separated by semicolons; a value is a token or a quoted string (RFC 9110 5.6).
_DIRECTIVE = re.compile(
    r"""[ \t]*+(?:(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]++)
        (?:=(?:(?P<token>[!#$%&'*+.^_`|~0-9A-Za-z-]++)|"(?P<quoted>(?:[^"\\\r\n]|\\[^\r\n])*+)"))?)?[ \t]*+(?:;|\Z)""",
    re.VERBOSE,
)
_LONGEST_AGE = 60 * 24 * 3600  # RFC 7469 section 4.1 thinks of about 60 days as the most


def read_hpkp(data: str | bytes, *, host: str, now: datetime, source: str = "") -> Imported:
    """
    Read one header.

    Args:
        data: ``Public-Key-Pins: …``, ``Public-Key-Pins-Report-Only: …``, or the value alone.
        host: The host that sends it.
        now: The instant at which it was seen, aware.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault.
    """
    text = as_text(data, source=source, most=MOST_BYTES_OF_A_LINE).strip()
    faults: list[Fault] = []
    losses: list[Loss] = []
    mode, value = _split_name(text)
    directives = list(_directives(value, faults))
    pins = _pins(directives, faults, losses)
    expires = _expires(directives, mode, now, faults, losses)
    names = {name for name, _ in directives}
    for name in sorted(names - {"includesubdomains", "max-age"}):
        if not name.startswith("pin-"):
            what = "report URIs are not part of a policy" if name == "report-uri" else "an unknown directive is ignored"
            losses.append(Loss(name, what))
    below = Subdomains.ALL if "includesubdomains" in names else Subdomains.NONE
    pin_set = _pin_set(host, pins, faults, mode=mode, expires=expires, below=below)
    if faults or pin_set is None:
        raise PolicyError(faults, source=source)
    return Imported(Policy((pin_set,), Unlisted.ALLOW), tuple(losses))


def _split_name(text: str) -> tuple[Mode, str]:
    name, colon, value = text.partition(":")
    if colon and (mode := _NAMES.get(name.strip().lower())) is not None:
        return mode, value
    return Mode.ENFORCE, text


def _directives(value: str, faults: list[Fault]) -> Iterator[tuple[str, str]]:
    """Name in lower case and value of every directive; one that stands twice is a fault, but for pins."""
    seen: set[str] = set()
    at = 0
    while at < len(value):
        match = _DIRECTIVE.match(value, at)
        if match is None:
            reason = f"{value[at : at + 40]!r} is not a directive: name, or name=value, up to a semicolon"
            faults.append(Fault(f"character {at + 1}", reason))
            return
        at = match.end()
        if not match["name"]:
            continue
        name = match["name"].lower()
        if name in seen and not name.startswith("pin-"):
            faults.append(Fault(name, "stands twice"))
        seen.add(name)
        quoted = match["quoted"]
        if name == "pin-sha256" and quoted is None:
            faults.append(Fault(name, "the value is not in double quotes"))
        yield name, re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match["token"] or ""


def _pins(directives: list[tuple[str, str]], faults: list[Fault], losses: list[Loss]) -> list[Pin]:
    pins: list[Pin] = []
    for name, value in directives:
        if name == "pin-sha256":
            try:
                pins.append(pin_exactly(value))
            except PinError as error:
                faults.append(Fault(name, str(error)))
        elif name.startswith("pin-"):
            # RFC 7469 section 2.4: pins of unknown algorithms are ignored, and the rest counts.
            losses.append(Loss(name, "only pin-sha256 is known; the pin is left out", Effect.TIGHTENS))
    return pins


def _expires(
    directives: list[tuple[str, str]], mode: Mode, now: datetime, faults: list[Fault], losses: list[Loss]
) -> datetime | None:
    age = dict(directives).get("max-age")
    if mode is Mode.REPORT_ONLY:
        return None  # RFC 7469 section 2.1.2: max-age has no meaning there
    if age is None:
        faults.append(Fault("max-age", "is missing"))
        return None
    try:
        seconds = timedelta(seconds=int(age)) if re.fullmatch(r"[0-9]{1,12}", age) else None
        expires = now + seconds if seconds else None
    except OverflowError:
        expires = None
    if expires is None:
        faults.append(Fault("max-age", f"{age[:40]!r} is not a number of seconds that leaves the pins in force"))
    else:
        losses.append(
            Loss("max-age", f"it begins anew with every response, and ends on {expires:%Y-%m-%d} in a policy")
        )
    return expires


def _pin_set(
    host: str, pins: list[Pin], faults: list[Fault], *, mode: Mode, expires: datetime | None, below: Subdomains
) -> PinSet | None:
    if faults:
        return None
    try:
        return PinSet(
            name=canonical_domain(host),
            subdomains=below,
            pins=pins,
            mode=mode,
            expires=expires,
            on_expiry=None if expires is None else OnExpiry.UNPIN,
        )
    except PolicyError as error:
        faults.extend(error.faults)
    except HostError as error:
        faults.append(Fault("host", str(error)))
    return None


def write_hpkp(policy: Policy, circumstances: Circumstances) -> Exported:
    """
    Write the header for one host.

    Args:
        policy: The policy.
        circumstances: The present instant, and the host if the policy has several.

    Raises:
        PolicyError: The host is not pinned, its pins have ended, or its rule has no pin that the format knows.
    """
    host, pin_set = one_host(policy, circumstances, "hpkp")
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_rotation(pin_set, losses)
    cover = cover_any_depth(policy, pin_set, losses)
    below = cover.below and cover.name == host
    if cover.below and not below and Scope.HOST not in {pattern.scope for pattern in pin_set.patterns}:
        losses.append(Loss(pin_set.name, f"the header speaks of {host} alone", Effect.WEAKENS))
    pins = keep_any_pins(pin_set, losses, faults)
    age = _age(pin_set, circumstances, losses, faults)
    if faults:
        raise PolicyError(faults, source="the conversion to hpkp")
    parts = [f'pin-sha256="{bare_digest(pin)}"' for pin in pins] + (["includeSubDomains"] if below else [])
    if pin_set.mode is Mode.ENFORCE:
        parts.insert(0, f"max-age={age}")
    return Exported(f"{_HEADERS[pin_set.mode]}: {'; '.join(parts)}\n", tuple(losses))


def _age(pin_set: PinSet, circumstances: Circumstances, losses: list[Loss], faults: list[Fault]) -> int:
    if pin_set.mode is Mode.REPORT_ONLY:
        lose_expiry(pin_set, losses)
        return 0
    if pin_set.expires is None or pin_set.on_expiry is not OnExpiry.UNPIN:
        lose_expiry(pin_set, losses)
        what = f"pins end {_LONGEST_AGE // 86400} days after a client has last seen the header"
        losses.append(Loss(pin_set.name, what, Effect.WEAKENS))
        return _LONGEST_AGE
    if circumstances.now is None:
        faults.append(Fault(pin_set.name, "max-age counts from now, and the present instant is not given"))
        return 0
    seconds = int((pin_set.expires - circumstances.now).total_seconds())
    if seconds <= 0:
        faults.append(Fault(pin_set.name, "the pin set has expired"))
    return seconds
