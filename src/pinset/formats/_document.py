"""
The policy document, whatever its spelling: nested mappings ↔ `Policy`.

Rules of this module:

1. The whole document is read before anything is refused, so that all faults come out at once, in order, each with its
   path, such as ``host[2]."api.example.com".pins[0]``.
2. An unknown key is a fault. A misspelt ``expires`` that is skipped would be a pin set that never ends.
3. No value is coerced: a text is not a list, 1 is not true, a date is not an instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pinset._errors import Fault, PolicyError
from pinset._policy import PIN_SET_FIELDS, PinSet, Policy, Role, Unlisted, did_you_mean, not_one_of, tabulate

_TOP_LEVEL = ("unlisted", "host")
_LISTS = tuple(role.value for role in Role)


def policy_from_document(document: object, *, source: str = "") -> Policy:
    """
    Build the policy that a parsed document describes.

    Args:
        document: What the TOML or JSON parser returned.
        source: Where it came from, for the error.

    Raises:
        PolicyError: With every fault.
    """
    if not isinstance(document, Mapping):
        raise PolicyError([Fault("", "the document is not a table with the keys unlisted and host")], source=source)
    faults = _unknown_keys(document, _TOP_LEVEL, "")
    unlisted = document.get("unlisted", Unlisted.DENY)
    if unlisted not in tuple(Unlisted):
        faults.append(not_one_of("unlisted", unlisted, Unlisted))
    hosts = document.get("host", [])
    if not isinstance(hosts, list):
        faults.append(Fault("host", "is not a list", "write [[host]] above each host, with two brackets"))
        hosts = []
    pin_sets = {index: pin_set for index, host in enumerate(hosts) if (pin_set := _pin_set(host, index, faults))}
    if faults:
        tabulate(pin_sets.items(), faults)
        raise PolicyError(faults, source=source)
    try:
        return Policy(tuple(pin_sets.values()), Unlisted(unlisted))
    except PolicyError as error:
        raise PolicyError(error.faults, source=source) from None


def document_from_policy(policy: Policy) -> dict[str, object]:
    """
    The document that `policy_from_document` turns into *policy* again. Defaults are left out.
    """
    return {"unlisted": policy.unlisted.value, "host": [_host(pin_set) for pin_set in policy.pin_sets]}


def _host(pin_set: PinSet) -> dict[str, object]:
    defaults = PinSet.__dataclass_fields__
    host: dict[str, object] = {}
    for key in PIN_SET_FIELDS:
        value = getattr(pin_set, key)
        if value != defaults[key].default:
            host[key] = [str(pin) for pin in value] if key in _LISTS else value
    return host


def _pin_set(host: object, index: int, faults: list[Fault]) -> PinSet | None:
    path = f"host[{index}]"
    if not isinstance(host, Mapping):
        faults.append(Fault(path, "is not a table", "write [[host]] above each host, with two brackets"))
        return None
    name = host.get("name")
    if not isinstance(name, str):
        faults.append(Fault(f"{path}.name", "is missing" if name is None else "is not a text", "name the host"))
        return None
    place = f'{path}."{name}"'
    wrong = _unknown_keys(host, PIN_SET_FIELDS, place)
    wrong.extend(Fault(f"{place}.{key}", "is null", "leave it out") for key, value in host.items() if value is None)
    pin_set = None
    try:
        pin_set = PinSet(**{key: host[key] for key in PIN_SET_FIELDS if host.get(key) is not None})
    except PolicyError as error:
        wrong.extend(Fault(f"{path}.{fault.path}", fault.reason, fault.suggestion) for fault in error.faults)
    faults.extend(wrong)
    return None if wrong else pin_set


def _unknown_keys(table: Mapping[object, object], known: tuple[str, ...], place: str) -> list[Fault]:
    prefix = f"{place}." if place else ""
    return [
        Fault(f"{prefix}{key}", "is not a known key", did_you_mean(key, known) or f"known are {', '.join(known)}")
        for key in table
        if key not in known
    ]


def utc_text(instant: datetime) -> str:
    """
    An aware instant as RFC 3339 text, in UTC.
    """
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
