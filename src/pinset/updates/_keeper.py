"""
`Keeper`: which policy is in force, and when to look for another one.

Rules of this module:

1. There is always a policy: the last one that verified, else the program's own. Nothing that fails takes it away.
2. What to do when nothing new has come for too long is the program's to say (`OnStale`); it never means to unpin.
3. Clients look at different moments: every wait is drawn between 0.8 and 1.2 of what it would be.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pinset._pinner import Pinner
from pinset._policy import Policy
from pinset.updates._errors import UpdateError, UpdateFault
from pinset.updates._floor import bounded
from pinset.updates._refresh import Found, Refresher

_FIRST_RETRY = timedelta(seconds=60)
_MOST_DOUBLINGS = 16
_SPREAD = 60.0  # seconds over which programs that are started together look first

_logger = logging.getLogger("pinset.updates")


class OnStale(StrEnum):
    """
    What to do when the signed files have expired and no newer ones come.
    """

    KEEP = "keep"
    """Go on with the last policy, and warn. Whoever can hold updates back keeps a revoked key alive."""
    FALLBACK = "fallback"
    """Go back to the program's own policy."""
    BLOCK = "block"
    """Refuse every host that is enforced. Whoever can hold updates back can stop the program."""


class Origin(StrEnum):
    """
    Where the policy in force comes from.
    """

    FALLBACK = "fallback"
    """The program brought it along."""
    REPOSITORY = "repository"
    """It was signed, now or in an earlier run."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """
    How a source is doing.

    Attributes:
        origin: Where the policy in force comes from.
        versions: Of the signed files behind it, by role; empty for none.
        checked: When the repository was last found to have nothing newer; None for never.
        expires: When the first of those files expires; None for none.
        is_stale: Whether that has passed, and the grace with it.
        error: Why the last look brought nothing; None if it went well.
        failures: How many looks in a row have failed.
    """

    origin: Origin
    versions: Mapping[str, int] = field(default_factory=dict)
    checked: datetime | None = None
    expires: datetime | None = None
    is_stale: bool = False
    error: UpdateError | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """
    When to look.

    Attributes:
        interval: Between looks that go well.
        grace: After the expiry, before `OnStale` applies.
        on_stale: What to do then.
    """

    interval: timedelta
    grace: timedelta
    on_stale: OnStale


class Keeper:
    """
    Puts policies in force.

    Args:
        pinner: Whose policy is replaced; the one that it has is the program's own.
        refresher: Looks for policies.
        timing: When to look, and what to do without news.
        tell: Called with the status after every look and every change.
    """

    def __init__(
        self, pinner: Pinner, refresher: Refresher, timing: Timing, tell: Callable[[SourceStatus], None] | None
    ) -> None:
        self._pinner, self._refresher, self._timing, self._tell = pinner, refresher, timing, tell
        self._fallback: Policy = pinner.policy
        self._found: Found | None = None
        self._failures = 0
        self._tried: datetime | None = None
        self._jitter = 1.0
        self.status = SourceStatus(Origin.FALLBACK)

    def load(self) -> None:
        """
        Put what the cache holds in force.
        """
        error = None
        try:
            self._found = self._refresher.load()
        except UpdateError as refused:
            error = refused
        self._tried = self._refresher.now() + timedelta(seconds=random.uniform(0, _SPREAD)) if self._found else None
        self._settle(error)

    async def look(self) -> None:
        """
        Look for a newer policy and put it in force. Whatever fails is told and not raised.
        """
        error: UpdateError | None = None
        try:
            found = await self._refresher.refresh()
        except UpdateError as refused:
            error = _without_frames(refused)
        except Exception as unexpected:
            _logger.exception("the look for a newer policy failed")
            error = UpdateError(f"{type(unexpected).__name__}: {unexpected}", fault=UpdateFault.INVALID)
        else:
            self._found, error = found, found.unsaved
        self._failures = self._failures + 1 if error is not None and error.fault is not UpdateFault.STORAGE else 0
        self._tried, self._jitter = self._refresher.now(), random.uniform(0.8, 1.2)
        self._settle(error)

    def wait(self) -> float:
        """
        Seconds until the next look; none or less for at once. Notices what has expired meanwhile.
        """
        if self._is_stale() != self.status.is_stale:
            self._settle(self.status.error)
        now, timing = self._refresher.now(), self._timing
        if self._tried is None or (self._found is None and not self._failures):
            return 0.0
        if self._found is None or self._failures:
            doublings = min(self._failures - 1, _MOST_DOUBLINGS)
            pause, begin = min(_FIRST_RETRY * (1 << doublings), timing.interval), self._tried
        else:
            # As the end comes nearer, looks come closer together.
            left = (self._found.verified.expires - now) / 4
            pause, begin = min(timing.interval, max(left, _FIRST_RETRY)), self._found.checked
        due = max(begin + pause * self._jitter, min(self._tried, now + timedelta(seconds=_SPREAD)))
        # A clock that was set back must not keep the next look away.
        return min((due - now).total_seconds(), timing.interval.total_seconds() * 1.2)

    def _is_stale(self) -> bool:
        found = self._found
        return found is not None and self._refresher.now() >= found.verified.expires + self._timing.grace

    def _settle(self, error: UpdateError | None) -> None:
        """Put the policy in force that follows from what is known, and tell."""
        before, found, is_stale = self.status, self._found, self._is_stale()
        policy, origin = self._fallback, Origin.FALLBACK
        if found is not None and not (is_stale and self._timing.on_stale is OnStale.FALLBACK):
            policy, origin = found.policy, Origin.REPOSITORY
            if self._timing.on_stale is OnStale.BLOCK:
                policy = bounded(policy, found.verified.expires + self._timing.grace)
        if policy != self._pinner.policy:
            self._pinner.replace(policy)
        self.status = SourceStatus(
            origin=origin,
            versions={} if found is None else found.verified.versions,
            checked=None if found is None else found.checked,
            expires=None if found is None else found.verified.expires,
            is_stale=is_stale,
            error=error,
            failures=self._failures,
        )
        _log(before, self.status, self._timing)
        if self._tell is not None:
            try:
                self._tell(self.status)
            except Exception:
                _logger.exception("on_change failed; the policy in force is not concerned")


def _without_frames(error: UpdateError) -> UpdateError:
    """The status lives on, and is not to keep connections and buffers alive through tracebacks."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _log(before: SourceStatus, status: SourceStatus, timing: Timing) -> None:
    error = status.error
    if error is not None and error is not before.error:
        level = logging.ERROR if error.fault.is_security_event else logging.WARNING
        _logger.log(level, "no newer policy (%s): %s", error.fault, error)
    if status.versions != before.versions:
        _logger.info("the policy of %s is in force", _versions(status))
    if status.is_stale and not before.is_stale:
        _logger.error(
            "the policy of %s expired on %s and no newer one has come: on_stale = %s",
            _versions(status),
            status.expires,
            timing.on_stale,
        )


def _versions(status: SourceStatus) -> str:
    return ", ".join(f"{role} version {version}" for role, version in status.versions.items())
