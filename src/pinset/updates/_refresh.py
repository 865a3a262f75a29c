"""
`Refresher`: one look at a repository, from the turn at the cache to the policy.

What comes out was verified as a whole: metadata, target, policy, and that the policy enforces no less than it may.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pinset._errors import PolicyError
from pinset._policy import Policy
from pinset.formats import read_json
from pinset.updates._errors import UpdateError, UpdateFault
from pinset.updates._fetch import Fetcher
from pinset.updates._floor import weaknesses
from pinset.updates._store import Kept, Store
from pinset.updates._trust import Steps, Verified, follow, verify_again

if TYPE_CHECKING:
    import httpx

_MOST_SHOWN = 5

_logger = logging.getLogger("pinset.updates")


@dataclass(frozen=True, slots=True)
class Found:
    """
    A policy that was verified, and what vouches for it.

    Attributes:
        policy: The policy.
        verified: The files it comes from.
        checked: When the repository was last found to have no newer one.
        unsaved: Why the cache could not be written, or None.
    """

    policy: Policy
    verified: Verified
    checked: datetime
    unsaved: UpdateError | None = None


class Refresher:
    """
    Looks for a newer policy.

    Args:
        anchor: The root that the program brings along.
        fetcher: Fetches files.
        store: Keeps them.
        name: The path of the target file.
        floor: What a policy may not fall below; None for anything that is a policy.
        clock: Returns the present instant, aware.
        deadline: Seconds for one look, waiting for other processes included.
    """

    def __init__(
        self,
        anchor: bytes,
        *,
        fetcher: Fetcher,
        store: Store,
        name: str,
        floor: Policy | None,
        clock: Callable[[], datetime],
        deadline: float,
    ) -> None:
        self._anchor, self._fetcher, self._store, self._name = anchor, fetcher, store, name
        self._floor, self._clock, self._deadline = floor, clock, deadline
        self._kept: Kept | None = None
        self._verified: Verified | None = None

    def now(self) -> datetime:
        """
        The present instant, never before one that was seen: a clock that is set back makes nothing fresh again.
        """
        now = self._clock()
        return now if self._kept is None else max(now, self._kept.seen)

    def load(self) -> Found | None:
        """
        What the cache holds, verified, without the network.

        Raises:
            UpdateError: It verifies, but the policy in it is not to be used.
        """
        self._read()
        if self._kept is None or self._verified is None:
            return None
        return Found(self._policy(self._verified), self._verified, self._kept.checked)

    async def refresh(self) -> Found:
        """
        Look at the repository, unless another process has just done so.

        Raises:
            UpdateError: There is no update.
        """
        asked = self._clock()
        try:
            async with asyncio.timeout(self._deadline), self._store.turn():
                self._read()
                if self._kept is not None and asked < self._kept.checked <= self._clock():
                    found = self.load()
                    assert found is not None  # it was verified when it was read
                    return found
                return await self._update()
        except TimeoutError as error:
            raise UpdateError(f"no answer within {self._deadline:g} seconds", fault=UpdateFault.SLOW) from error

    def _read(self) -> None:
        """The newest of what this process and the cache know: another process may have been here."""
        kept = self._store.read()
        if kept is None or (self._kept is not None and kept.files == self._kept.files):
            if kept is not None and self._kept is not None and kept.seen >= self._kept.seen:
                self._kept = kept
            return
        try:
            verified = verify_again(self._anchor, kept.files.get, name=self._name)
        except UpdateError as error:
            _logger.warning("what the cache holds does not verify and is ignored: %s", error)
            return
        if self._verified is None or _age(verified) >= _age(self._verified):
            self._kept, self._verified = kept, verified

    async def _update(self) -> Found:
        now, known = self.now(), {} if self._kept is None else self._kept.files
        try:
            async with self._fetcher.connected() as client:
                verified = await drive(self._fetcher, client, follow(self._anchor, known, name=self._name, now=now))
            policy = self._policy(verified)
        except UpdateError as error:
            self._remember_expiry(error, now)
            raise
        self._verified, self._kept = verified, Kept(verified.files, checked=self._clock(), seen=now)
        unsaved = None
        try:
            self._store.write(self._kept)
        except UpdateError as error:
            unsaved = error
        return Found(policy, verified, self._kept.checked, unsaved)

    def _policy(self, verified: Verified) -> Policy:
        try:
            policy = read_json(verified.target.decode("utf-8"), source=self._name)
        except (PolicyError, UnicodeDecodeError) as error:
            raise UpdateError(f"{self._name} is signed, and no policy: {error}", fault=UpdateFault.INVALID) from error
        faults = [] if self._floor is None else weaknesses(policy, self._floor)
        if faults:
            more = f"; and {len(faults) - _MOST_SHOWN} more" if len(faults) > _MOST_SHOWN else ""
            reasons = "; ".join(map(str, faults[:_MOST_SHOWN])) + more
            reason = f"{self._name} is signed, and enforces less than the program's own policy: {reasons}"
            raise UpdateError(f"{reason}. Where that is meant, say allow_weaker=True", fault=UpdateFault.WEAKER)
        return policy

    def _remember_expiry(self, error: UpdateError, now: datetime) -> None:
        """
        What was once seen to have expired stays expired, whatever the clock says later.

        Not the clock is remembered, which may be wrong by years, and nothing that lives for longer than a timestamp: the
        next timestamp expires later, and will do.
        """
        if error.fault is not UpdateFault.EXPIRED or self._kept is None or self._verified is None:
            return
        [timestamp] = (state for state in self._verified.roles if state.role == "timestamp")
        seen = min(now, error.expired_at or timestamp.expires)
        if seen > self._kept.seen:
            self._kept = replace(self._kept, seen=seen)
            with suppress(UpdateError):
                self._store.write(self._kept)


async def drive(fetcher: Fetcher, client: httpx.AsyncClient, steps: Steps[Verified]) -> Verified:
    """
    Fetch what *steps* want, until they have it all.

    Raises:
        UpdateError: A file cannot be fetched, or is not to be believed.
    """
    try:
        want = next(steps)
        while True:
            want = steps.send(await fetcher.fetch(client, want))
    except StopIteration as end:
        verified: Verified = end.value
        return verified


def _age(verified: Verified) -> tuple[int, int]:
    # After a key was changed versions may begin anew (TUF specification, section 5.3.11), but those of the root never do.
    return verified.versions["root"], verified.versions["timestamp"]
