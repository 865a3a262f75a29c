"""
The argument of ``curl --pinnedpubkey``: ``sha256//…`` joined by semicolons.

It speaks of one request and of the server's own key, so it is read as ``leaf_pins`` of a host that is given, and only
those are written. curl compares text: no space, no missing padding, lower case before the slashes, no last semicolon.
"""

from __future__ import annotations

from pinset._errors import Fault, HostError, PinError, PolicyError
from pinset._pins import Pin
from pinset._policy import PinSet, Policy, Role, Unlisted
from pinset.formats._differences import (
    bare_digest,
    keep_roles,
    lose_expiry,
    mode_becomes_enforced,
    note_rotation,
    one_host,
    pin_exactly,
)
from pinset.formats._domains import canonical_domain
from pinset.formats.exchange import (
    MOST_BYTES_OF_A_LINE,
    NOTHING_GIVEN,
    Circumstances,
    Effect,
    Exported,
    Imported,
    Loss,
    as_text,
)

_PREFIX = "sha256//"


def read_curl(data: str | bytes, *, host: str, source: str = "") -> Imported:
    """
    Read the argument of ``--pinnedpubkey``.

    Args:
        data: The argument.
        host: The host of the request that it was given for.
        source: Its name, for the error.

    Raises:
        PolicyError: It is a file name, or a part of it is no pin; with every such part.
    """
    text = as_text(data, source=source, most=MOST_BYTES_OF_A_LINE).removesuffix("\n").removesuffix("\r")
    if not text.lower().startswith("sha256"):
        reason = f"{text[:80]!r} does not begin with {_PREFIX}, so curl takes it for the name of a key file"
        raise PolicyError([Fault("", reason, "for the pin of that key: pinset pin FILE")], source=source)
    faults: list[Fault] = []
    pins: list[Pin] = []
    for number, part in enumerate(text.split(";"), 1):
        try:
            pins.append(_pin(part))
        except PinError as error:
            faults.append(Fault(f"part {number}", str(error)))
    name = ""
    try:
        name = canonical_domain(host)
    except HostError as error:
        faults.append(Fault("host", str(error)))
    if faults:
        raise PolicyError(faults, source=source)
    losses = []
    if is_single := len(set(pins)) == 1:
        losses.append(Loss(name, "there is one pin and no backup; allow_single_pin accepts that"))
    pin_set = PinSet(name=name, leaf_pins=pins, allow_single_pin=is_single)
    return Imported(Policy((pin_set,), Unlisted.ALLOW), tuple(losses))


def _pin(part: str) -> Pin:
    if not part.startswith(_PREFIX):
        raise PinError(f"{part[:80]!r} does not begin with {_PREFIX}, and curl reads nothing from here on", text=part)
    return pin_exactly(part.removeprefix(_PREFIX))


def write_curl(policy: Policy, circumstances: Circumstances = NOTHING_GIVEN) -> Exported:
    """
    Write the argument of ``--pinnedpubkey`` for one host.

    Args:
        policy: The policy.
        circumstances: Names the host if the policy has several, and says which keys in ``pins`` are of leaves.

    Raises:
        PolicyError: The host is not pinned, or its rule has no pin of a leaf.
    """
    host, pin_set = one_host(policy, circumstances, "curl")
    losses: list[Loss] = []
    faults: list[Fault] = []
    note_rotation(pin_set, losses)
    mode_becomes_enforced(pin_set, losses)
    lose_expiry(pin_set, losses)
    lists = keep_roles(pin_set, circumstances, losses, faults)
    if Role.LEAF not in lists and not faults:
        faults.append(
            Fault(host, "pins keys of CAs only, and curl looks at the server's own key", "pin the leaf's key")
        )
    if faults:
        raise PolicyError(faults, source="the conversion to curl")
    if Role.CA in lists:
        losses.append(Loss(pin_set.name, "ca_pins must match as well, and are not asked for there", Effect.WEAKENS))
    return Exported(";".join(_PREFIX + bare_digest(pin) for pin in lists[Role.LEAF]) + "\n", tuple(losses))
