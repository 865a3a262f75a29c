"""
What crosses a border between formats: a policy or a text, and the list of what was lost on the way.

Rules of this module:

1. A reader or writer refuses with a `PolicyError`, or it reports a `Loss`. Nothing is dropped in silence.
2. A loss *weakens* when the result would accept, for a host that the source pins, a chain that the source refuses, or
   would pin fewer hosts. It *tightens* when the result refuses what the source accepts, which can be an outage.
3. What a file says beside pins (trust anchors, certificate transparency, cleartext, hosts that no rule names) is
   reported and weighs nothing: pins add to verification, and a policy of pins cannot carry it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pinset._errors import Fault, PolicyError
from pinset._pins import Pin
from pinset._policy import Policy, Role

# A policy of 5,000 hosts is below it. What is larger is a mistake or an attack, and is not parsed.
MOST_BYTES = 1 << 20
# What one line of a format holds: a header, an argument.
MOST_BYTES_OF_A_LINE = 1 << 16
# Where every line may be a fault, a reader stops after so many.
MOST_FAULTS = 100
_MOST_PINS = 20_000


class Effect(StrEnum):
    """
    What a loss does to the pins: it ``weakens`` them, it ``tightens`` them, or it changes ``nothing``.
    """

    WEAKENS = "weakens"
    TIGHTENS = "tightens"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Loss:
    """
    One thing that the target cannot say.

    Attributes:
        place: Where in the source: a line, or a host of the policy.
        what: What is lost, and what the result does instead.
        effect: What that does to the pins.
    """

    place: str
    what: str
    effect: Effect = Effect.NOTHING

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" if self.place else self.what

    @property
    def weakens(self) -> bool:
        """
        Whether a chain that the source refuses would be accepted.
        """
        return self.effect is Effect.WEAKENS


@dataclass(frozen=True, slots=True)
class Imported:
    """
    A policy that was read from another format.

    Attributes:
        policy: What was read.
        losses: What the text says and the policy does not, in the order of the text.
    """

    policy: Policy
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """
    A policy that was written in another format.

    Attributes:
        text: What was written.
        losses: What the policy says and the text does not, in the order of the policy.
    """

    text: str
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """
    What some formats leave to their surroundings.

    Attributes:
        host: The one host that a curl option or an HPKP header is for.
        now: The instant from which an HPKP ``max-age`` counts, aware.
        port: The port of TLSA records.
        roles: Whether a key of ``pins`` is that of a leaf or of a CA, for formats that ask (Apple, curl).
        other_roles: The role of every key that *roles* does not name; None when it is not known.
    """

    host: str | None = None
    now: datetime | None = None
    port: int = 443
    roles: Mapping[Pin, Role] = field(default_factory=dict)
    other_roles: Role | None = None


NOTHING_GIVEN = Circumstances()


def as_text(data: str | bytes, *, source: str, most: int = MOST_BYTES) -> str:
    """
    *data* as text, no longer than what is read.

    Raises:
        PolicyError: It is longer, or not UTF-8.
    """
    check_size(data, source=source, most=most)
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError([Fault("", f"not UTF-8 text: {error}")], source=source) from error


def check_size(data: str | bytes, *, source: str, most: int = MOST_BYTES) -> None:
    """
    Refuse what is too long to be a policy, before any parser sees it.

    Raises:
        PolicyError: *data* is longer than *most*.
    """
    if len(data) > most:
        reason = f"{len(data):,} bytes, and at most {most:,} are read"
        raise PolicyError([Fault("", reason, "give the text with the pins alone")], source=source)


def check_pin_count(counts: Iterable[int], *, source: str) -> None:
    """
    Refuse a text in which a few names hand many pins down to many others.

    Args:
        counts: How many pins each name has, those that it inherits among them.
        source: The name of the text, for the error.

    Raises:
        PolicyError: There are more pins than any policy needs.
    """
    total = 0
    for count in counts:
        total += count
        if total > _MOST_PINS:
            reason = f"more than {_MOST_PINS:,} pins, once every name has those that it inherits"
            raise PolicyError([Fault("", reason)], source=source)
