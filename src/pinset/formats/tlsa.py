"""
TLSA records in a zone file (RFC 6698), as a place that pins come from and go to. They are never looked up.

Any one record of a name is enough. ``1 1 1`` is the key of a leaf, ``0 1 1`` that of a CA, so a pin of either is two
records, and ``x 0 1`` is a whole certificate. Usages 2 and 3 give up the verification of the chain, which pinset never
does. A record is of one port; a policy knows none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pinset._certificates import checked_spki, spki_of_certificate
from pinset._errors import CertificateError, Fault, HostError, PolicyError
from pinset._hosts import Scope, is_address
from pinset._pins import Pin, PinKind
from pinset._policy import Mode, PinSet, Policy, Role, Unlisted
from pinset.formats._differences import lose_expiry, mode_becomes_enforced, note_rotation, note_unlisted
from pinset.formats._domains import canonical_domain
from pinset.formats.exchange import MOST_FAULTS, NOTHING_GIVEN, Circumstances, Effect, Exported, Imported, Loss, as_text

_COMMENT = re.compile(r";[^\n]*")
_OWNER = re.compile(r"_(?P<port>[0-9]{1,5})\._(?P<protocol>[a-z]+)\.(?P<host>\S+)", re.IGNORECASE)
_CA_USAGES, _USAGES, _SELECTORS = (0, 2), 4, 2
_FULL, _SHA256, _SHA512 = 0, 1, 2
_KEY = 1
_SHA256_SIZE = 32
_TTL = 3600


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    host: str
    port: int
    role: Role
    pin: Pin


def read_tlsa(data: str | bytes, *, port: int = 443, source: str = "") -> Imported:
    """
    Read the TLSA records of a zone file.

    Args:
        data: The records, as ``_443._tcp.host. 3600 IN TLSA 1 1 1 …``.
        port: Records of other ports are left out.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault and its line.
    """
    faults: list[Fault] = []
    losses: list[Loss] = []
    by_host: dict[str, list[_Record]] = {}
    for line, fields in _entries(as_text(data, source=source), faults):
        record = _record(line, fields, faults, losses)
        if len(faults) >= MOST_FAULTS:
            break
        if record is None:
            continue
        if record.port != port:
            losses.append(Loss(f"line {line}", f"the record is of port {record.port}, not {port}: left out"))
        else:
            by_host.setdefault(record.host, []).append(record)
    pin_sets = [made for host, records in by_host.items() if (made := _pin_set(host, records, faults, losses))]
    if not pin_sets and not faults:
        faults.append(Fault("", f"there is no TLSA record of port {port} that a policy can hold"))
    if faults:
        raise PolicyError(faults, source=source)
    return Imported(Policy(tuple(pin_sets), Unlisted.ALLOW), tuple(losses))


def _entries(text: str, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    """The fields of every entry, with its line; brackets join lines (RFC 1035 section 5.1)."""
    fields: list[str] = []
    begin, depth = 0, 0
    for number, line in enumerate(_COMMENT.sub("", text).splitlines(), 1):
        if not fields:
            begin = number
        for field in line.replace("(", " ( ").replace(")", " ) ").split():
            if field in "()":
                depth += 1 if field == "(" else -1
            else:
                fields.append(field)
        if depth <= 0:
            if fields:
                yield begin, fields
            fields, depth = [], 0
    if depth:
        faults.append(Fault(f"line {begin}", "a bracket is never closed"))


def _record(line: int, fields: list[str], faults: list[Fault], losses: list[Loss]) -> _Record | None:
    place = f"line {line}"
    kind = next((index for index, field in enumerate(fields) if field.upper() == "TLSA"), None)
    if kind is None or kind == 0:
        reason = "is not a TLSA record with its name on the same line"
        faults.append(Fault(place, reason, "write _443._tcp.host. 3600 IN TLSA 1 1 1 …"))
        return None
    owner = _OWNER.fullmatch(fields[0])
    if owner is None or owner["protocol"].lower() != "tcp":
        faults.append(Fault(place, f"{fields[0][:80]!r} is not the name of a TCP service", "such as _443._tcp.host."))
        return None
    try:
        host = canonical_domain(owner["host"])
    except HostError as error:
        faults.append(Fault(place, str(error)))
        return None
    found = _association(place, fields[kind + 1 :], faults, losses)
    return None if found is None else _Record(line, host, int(owner["port"]), *found)


def _association(place: str, fields: list[str], faults: list[Fault], losses: list[Loss]) -> tuple[Role, Pin] | None:
    """What a record holds: usage, selector, matching type, and the data in hexadecimal."""
    numbers, digits = fields[:3], "".join(fields[3:])
    if len(numbers) < 3 or not all(re.fullmatch("[0-9]{1,3}", number) for number in numbers):  # noqa: PLR2004
        faults.append(Fault(place, "usage, selector and matching type are three numbers, such as 1 1 1"))
        return None
    usage, selector, matching = map(int, numbers)
    if usage >= _USAGES or selector >= _SELECTORS or matching > _SHA512:
        faults.append(Fault(place, f"{usage} {selector} {matching} is unknown (RFC 6698 section 2.1)"))
        return None
    try:
        data = bytes.fromhex(digits)
        pin = _pin(data, selector, matching)
    except (ValueError, CertificateError) as error:
        faults.append(Fault(place, f"the data is not what {usage} {selector} {matching} says: {error}"))
        return None
    if pin is None:
        losses.append(Loss(place, "a SHA-512 digest is not a pin: left out", Effect.TIGHTENS))
        return None
    if usage >= 2:  # noqa: PLR2004 - DANE-TA, DANE-EE
        losses.append(
            Loss(place, f"usage {usage} trusts the key alone; here the chain is verified, too", Effect.TIGHTENS)
        )
    if selector != _KEY:
        return Role.CERTIFICATE, pin
    return (Role.CA if usage in _CA_USAGES else Role.LEAF), pin


def _pin(data: bytes, selector: int, matching: int) -> Pin | None:
    kind = PinKind.SPKI if selector == _KEY else PinKind.CERTIFICATE
    if matching == _SHA512:
        return None
    if matching == _SHA256:
        if len(data) != _SHA256_SIZE:
            raise ValueError(f"{len(data)} bytes, and SHA-256 is {_SHA256_SIZE}")
        return Pin(kind, data)
    (checked_spki if selector == _KEY else spki_of_certificate)(data)
    return Pin(kind, hashlib.sha256(data).digest())


def _pin_set(host: str, records: list[_Record], faults: list[Fault], losses: list[Loss]) -> PinSet | None:
    """The rule of one host. Any record is enough, so at most one list can come of them."""
    place = f"line {records[0].line}"
    lists: dict[Role, list[Pin]] = {}
    for record in records:
        lists.setdefault(record.role, []).append(record.pin)
    if Role.CERTIFICATE in lists and len(lists) > 1:
        reason = f"{host} has records of keys and of certificates, and in a policy both lists would have to match"
        faults.append(Fault(place, reason, "leave the records of keys"))
        return None
    if len(lists) > 1:
        if set(lists[Role.CA]) != set(lists[Role.LEAF]):
            what = f"the keys of {host} are accepted in any place of the chain, whichever usage they have"
            losses.append(Loss(place, what, Effect.WEAKENS))
        lists = {Role.ANY: [record.pin for record in records]}
    if is_single := len({record.pin for record in records}) == 1:
        losses.append(Loss(place, f"{host} has one pin and no backup; allow_single_pin accepts that"))
    # It has pins, of the kind of their list, and a single one is accepted: `PinSet` has nothing to refuse.
    return PinSet(name=host, allow_single_pin=is_single, **{role.value: pins for role, pins in lists.items()})  # type: ignore[arg-type]  # the role names the list


def write_tlsa(policy: Policy, circumstances: Circumstances = NOTHING_GIVEN) -> Exported:
    """
    Write *policy* as TLSA records, for names whose zone is signed.

    Args:
        policy: The policy.
        circumstances: The port.

    Raises:
        PolicyError: A rule is not of a host name.
    """
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_unlisted(policy, losses)
    lines: list[str] = []
    for pin_set in policy.pin_sets:
        if pin_set.mode is Mode.OFF:
            losses.append(Loss(pin_set.name, "an exclusion is a name without records"))
            continue
        base, scopes = pin_set.patterns[0].base, {pattern.scope for pattern in pin_set.patterns}
        if is_address(base) or scopes == {Scope.LABEL}:
            faults.append(Fault(pin_set.name, "is not a host name, and a record stands at one", "leave the rule out"))
            continue
        if scopes != {Scope.HOST}:
            losses.append(Loss(pin_set.name, "subdomains have no records, and no pins", Effect.WEAKENS))
        note_rotation(pin_set, losses)
        mode_becomes_enforced(pin_set, losses)
        lose_expiry(pin_set, losses)
        owner = f"_{circumstances.port}._tcp.{base}. {_TTL} IN TLSA"
        lines += [f"{owner} {record}" for record in _records(pin_set, losses)]
    if faults:
        raise PolicyError(faults, source="the conversion to tlsa")
    return Exported("\n".join([*lines, ""]), tuple(losses))


_NUMBERS = {
    Role.LEAF: ("1 1 1",),
    Role.CA: ("0 1 1",),
    Role.ANY: ("0 1 1", "1 1 1"),
    Role.CERTIFICATE: ("0 0 1", "1 0 1"),
}


def _records(pin_set: PinSet, losses: list[Loss]) -> Iterator[str]:
    # One record is enough there, so of lists that must all match, one is written: that of the leaf if there is one.
    lists = {requirement.role: requirement.pins for requirement in pin_set.requirements}
    role = next(role for role in (Role.CERTIFICATE, Role.LEAF, Role.CA, Role.ANY) if role in lists)
    for other in lists:
        if other is not role:
            what = f"{other.value} must match as well, and are not asked for there"
            losses.append(Loss(pin_set.name, what, Effect.WEAKENS))
    for pin in lists[role]:
        for numbers in _NUMBERS[role]:
            yield f"{numbers} {pin.digest.hex()}"
