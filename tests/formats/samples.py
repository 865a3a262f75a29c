"""
Pins, and the samples of every format that the tests share.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pinset import Fault, Pin, PinKind, Policy, PolicyError, Unlisted
from pinset.formats.exchange import Effect, Exported, Imported, Loss

A = "7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
B = "fwza0LRMXouZHRC8Ei+4PyuldPDcf3UKgO/04cDM1oE="
C = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
PIN_A, PIN_B, PIN_C = (Pin.parse(f"sha256/{text}") for text in (A, B, C))
WHOLE_A, WHOLE_B = (Pin(PinKind.CERTIFICATE, bytes([n]) * 32) for n in (1, 2))
DAY = datetime(2027, 1, 31, tzinfo=UTC)
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
UNLISTED = Loss("unlisted", "hosts that no rule names are refused here and reached there, without pins")


def open_policy(*pin_sets) -> Policy:
    """A policy that lets hosts through which it does not name, as every other format does."""
    return Policy(pin_sets, Unlisted.ALLOW)


def faults_of(read, *args, **keywords) -> list[Fault]:
    """The faults for which *read* refuses."""
    with pytest.raises(PolicyError) as caught:
        read(*args, **keywords)
    return list(caught.value.faults)


def places(result: Imported | Exported) -> list[tuple[str, Effect]]:
    """Where something was lost, and what that does."""
    return [(loss.place, loss.effect) for loss in result.losses]
