"""
What becomes of each property of a pin set where another format cannot say it.

Every writer goes through these functions, so that a property is lost in the same words, with the same weight, in every
format. Each returns what can be written and adds what cannot to the losses.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from pinset._errors import Fault, PinError, PolicyError
from pinset._pins import Pin, PinKind
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Role, Unlisted
from pinset.formats._document import utc_text
from pinset.formats.exchange import Circumstances, Effect, Loss

_ROLE_HELP = "give the certificates with --chain, or say what the keys are with --role leaf or --role ca"
_BARE = re.compile("[A-Za-z0-9+/]{43}=")
_HEX = re.compile("[0-9A-Fa-f]{64}")
_DIGEST_SIZE, _SHA1_SIZE, _LONGEST_QUOTE = 32, 20, 80
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORDS = {Role.LEAF: "leaf", Role.CA: "CA"}


def bare_digest(pin: Pin) -> str:
    """
    The digest in base64 without a prefix, as Android, Apple and TrustKit write it.
    """
    return base64.b64encode(pin.digest).decode("ascii")


def pin_from_bare(text: str) -> Pin:
    """
    A public-key pin from base64 without a prefix.

    Raises:
        PinError: Which of the usual mistakes it is.
    """
    stripped = text.strip()
    try:
        if _BARE.fullmatch(stripped):
            return Pin.parse("sha256/" + stripped, kind=PinKind.SPKI)
    except PinError:
        pass  # its words speak of the prefix, which stands nowhere in the text
    raise PinError(f"{stripped[:_LONGEST_QUOTE]!r} {_mistake(stripped)}", text=text)


def _mistake(text: str) -> str:
    """Why *text* is not the base64 of 32 bytes, without a prefix."""
    if not text or text.startswith(("sha256/", "sha1/", "pin-sha256")):
        return "has a prefix; this format writes the base64 alone" if text else "is empty"
    if _HEX.fullmatch(text):
        return f"is hexadecimal; in base64 it is {base64.b64encode(bytes.fromhex(text)).decode()}"
    if stray := re.search("[^A-Za-z0-9+/=]", text):
        hint = "; it is URL-safe base64: write + for - and / for _" if stray[0] in "-_" else ""
        return f"is not base64: it holds {stray[0]!r}{hint}"
    unpadded = text.rstrip("=")
    if len(unpadded) % 4 == 1 or "=" in unpadded:
        return f"is not base64: no bytes have {len(unpadded)} characters; some are missing"
    size = len(unpadded) * 3 // 4
    if size != _DIGEST_SIZE:
        sha1 = "; that is the size of SHA-1, which can be forged" if size == _SHA1_SIZE else ""
        return f"is {size} bytes, and SHA-256 is {_DIGEST_SIZE}{sha1}"
    canonical = base64.b64encode(base64.b64decode(unpadded + "=")).decode()
    reason = "is not canonical base64" if text.endswith("=") else "lacks the = at its end"
    return f"{reason}; if it is the right pin, write {canonical}"


def pin_exactly(text: str) -> Pin:
    """
    The same for formats that are compared as text, where not even space around a pin is forgiven.

    Raises:
        PinError: What is wrong with it.
    """
    if text != text.strip():
        raise PinError(f"{text[:80]!r} has space around it", text=text)
    return Pin.parse("sha256/" + text, kind=PinKind.SPKI)


def note_unlisted(policy: Policy, losses: list[Loss]) -> None:
    """
    No other format refuses hosts that it does not name.
    """
    if policy.unlisted is Unlisted.DENY:
        losses.append(Loss("unlisted", "hosts that no rule names are refused here and reached there, without pins"))


def note_rotation(pin_set: PinSet, losses: list[Loss]) -> None:
    """
    No other format has a place for the rotation note.
    """
    if pin_set.rotation:
        losses.append(Loss(pin_set.name, "the rotation note has no place there"))


def keep_any_pins(pin_set: PinSet, losses: list[Loss], faults: list[Fault]) -> tuple[Pin, ...]:
    """
    The pins for a format in which a pin is the key of any certificate of the chain.
    """
    lists = {requirement.role: requirement.pins for requirement in pin_set.requirements}
    place = pin_set.name
    if lists.pop(Role.CERTIFICATE, None):
        if not lists:
            faults.append(Fault(place, "pins whole certificates, and the format knows keys only", "pin the key"))
            return ()
        losses.append(Loss(place, "certificate_pins are not asked for there", Effect.WEAKENS))
    # Of lists that must all match, the leaf's own key says most.
    role = next(role for role in (Role.LEAF, Role.CA, Role.ANY) if role in lists)
    losses.extend(
        Loss(place, f"{other.value} must match as well, and are not asked for there", Effect.WEAKENS)
        for other in lists
        if other is not role
    )
    if role is not Role.ANY:
        what = f"{role.value} are accepted there in any certificate of the chain"
        losses.append(Loss(place, what, Effect.WEAKENS))
    return lists[role]


def keep_roles(
    pin_set: PinSet, circumstances: Circumstances, losses: list[Loss], faults: list[Fault]
) -> dict[Role, tuple[Pin, ...]]:
    """
    The pins for a format that asks whether a key is a leaf's or a CA's: at most one list for each.
    """
    lists = {requirement.role: requirement.pins for requirement in pin_set.requirements}
    place = pin_set.name
    if lists.pop(Role.CERTIFICATE, None):
        if not lists:
            faults.append(Fault(place, "pins whole certificates, and the format knows keys only", "pin the key"))
            return {}
        losses.append(Loss(place, "certificate_pins are not asked for there", Effect.WEAKENS))
    anywhere = lists.pop(Role.ANY, ())
    if not anywhere:
        return lists
    if lists:
        losses.append(Loss(place, "pins must match as well, and are not asked for there", Effect.WEAKENS))
        return lists
    role = _common_role(anywhere, circumstances, place, faults)
    if role is None:
        return {}
    where = f"pins are accepted there only as keys of a {_WORDS[role]}"
    losses.append(Loss(place, where, Effect.TIGHTENS))
    return {role: anywhere}


def _common_role(pins: Sequence[Pin], circumstances: Circumstances, place: str, faults: list[Fault]) -> Role | None:
    """
    The one role that all *pins* have; a fault without it, since a list for each role would ask for both at once.
    """
    known = {role for pin in pins if (role := circumstances.roles.get(pin)) is not None}
    if len(known) > 1:
        reason = "pins are keys of leaves and of CAs; here one is enough, and there both lists would have to match"
        faults.append(Fault(place, reason, "split them in the policy: leave the pins of one kind"))
        return None
    others = [pin for pin in pins if pin not in circumstances.roles]
    if others and circumstances.other_roles is not None:
        known.add(circumstances.other_roles)
    if len(known) == 1:
        return known.pop()
    reason = f"it is not known whether {others[0]} is the key of a leaf or of a CA" if others else "no role is known"
    if known:
        reason = "the chain and --role say different things of the keys in pins"
    faults.append(Fault(place, reason, _ROLE_HELP))
    return None


def mode_becomes_enforced(pin_set: PinSet, losses: list[Loss]) -> None:
    """
    For formats without a report-only mode.
    """
    if pin_set.mode is Mode.REPORT_ONLY:
        what = "report-only does not exist there: a mismatch is refused"
        losses.append(Loss(pin_set.name, what, Effect.TIGHTENS))


def keep_day(pin_set: PinSet, losses: list[Loss]) -> date | None:
    """
    The day from which a format with dates stops enforcing; None for never.
    """
    if pin_set.expires is None:
        return None
    if pin_set.on_expiry is not OnExpiry.UNPIN:
        _expiry_without_unpin(pin_set, losses)
        return None
    utc = pin_set.expires.astimezone(UTC)
    if utc.time() != time():
        what = f"expires is a day there: pins end at the beginning of {utc.date()}, not at {utc_text(pin_set.expires)}"
        losses.append(Loss(pin_set.name, what, Effect.WEAKENS))
    return utc.date()


def lose_expiry(pin_set: PinSet, losses: list[Loss]) -> None:
    """
    For formats in which pins never end.
    """
    if pin_set.expires is None:
        return
    if pin_set.on_expiry is OnExpiry.UNPIN:
        what = f"expires is lost: pins are enforced after {utc_text(pin_set.expires)} as well"
        losses.append(Loss(pin_set.name, what, Effect.TIGHTENS))
        return
    _expiry_without_unpin(pin_set, losses)


def _expiry_without_unpin(pin_set: PinSet, losses: list[Loss]) -> None:
    assert pin_set.expires is not None
    if pin_set.on_expiry is OnExpiry.BLOCK:
        what = f"on_expiry = block is lost: the pinned keys are accepted after {utc_text(pin_set.expires)}"
        losses.append(Loss(pin_set.name, what, Effect.WEAKENS))
        return
    losses.append(Loss(pin_set.name, "expires is lost; it only warned"))


def read_day(text: str) -> datetime:
    """
    The beginning of a day written ``yyyy-MM-dd``, in UTC.

    Raises:
        ValueError: It is no such day.
    """
    if not _DAY.fullmatch(text):  # `fromisoformat` knows weeks, too
        raise ValueError(text)
    return datetime.combine(date.fromisoformat(text), time(), UTC)


def one_host(policy: Policy, circumstances: Circumstances, target: str) -> tuple[str, PinSet]:
    """
    The host, and its rule, for a format that speaks of one host.

    Raises:
        PolicyError: Which one is not said, or no rule pins it.
    """
    host = circumstances.host
    if host is None:
        hosts = [pin_set.patterns[0].base for pin_set in policy.pin_sets if pin_set.mode is not Mode.OFF]
        if len(hosts) != 1:
            fault = Fault("", f"{target} is for one host, and the policy has {len(hosts)}", "name it with --host")
            raise PolicyError([fault], source=f"the conversion to {target}")
        host = hosts[0]
    pin_set = policy.find(host)
    if pin_set is None or pin_set.mode is Mode.OFF:
        raise PolicyError([Fault(host, "no rule of the policy pins this host")], source=f"the conversion to {target}")
    return host, pin_set
