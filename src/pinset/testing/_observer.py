"""
What a test looks through and at: an observer that remembers, and a clock that stands still.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pinset._verdict import Outcome, Verdict


class RecordingObserver:
    """
    An observer for a `pinset.Pinner` that keeps every verdict.

    Attributes:
        verdicts: In the order in which they came.
    """

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def __call__(self, verdict: Verdict) -> None:
        """
        Keep *verdict*.
        """
        self.verdicts.append(verdict)

    def outcomes(self, host: str = "") -> list[Outcome]:
        """
        What was found, for *host* only if it is given.
        """
        return [verdict.outcome for verdict in self.verdicts if host in ("", verdict.host)]

    def clear(self) -> None:
        """
        Forget them.
        """
        self.verdicts.clear()


class FrozenClock:
    """
    A clock for a `pinset.Pinner` that moves only when it is told to: to see a pin set expire.

    OpenSSL has a clock of its own, so certificates are as old as they are.

    Args:
        now: Where it stands, aware; by default the present instant.
    """

    def __init__(self, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC)

    @property
    def now(self) -> datetime:
        """
        Where it stands; may be set.
        """
        return self._now

    @now.setter
    def now(self, instant: datetime) -> None:
        if instant.tzinfo is None:
            raise ValueError(
                f"{instant} has no time zone; pinset compares instants, so say which: datetime(…, tzinfo=UTC)"
            )
        self._now = instant

    def __call__(self) -> datetime:
        """
        The instant at which it stands.
        """
        return self._now

    def advance(self, span: timedelta) -> None:
        """
        Move it by *span*.
        """
        self._now += span
