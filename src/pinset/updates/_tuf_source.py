"""
`TufPinSource`: a policy that changes without a release.

Rules of this module:

1. What it starts, it stops: with ``async with`` and with ``with`` alike.
2. Between the two a look is never further away than its interval, and a pin that is refused brings one at once, for
   clients that wait for it and, through an observer, for contexts that cannot.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pinset._errors import InputError, RefusedError
from pinset._pinner import Observer, Pinner, Pins
from pinset._policy import Policy
from pinset._verdict import Decision, Outcome, Verdict
from pinset.updates._engine import Engine, finished, joined
from pinset.updates._fetch import Fetcher
from pinset.updates._keeper import Keeper, OnStale, SourceStatus, Timing
from pinset.updates._refresh import Refresher
from pinset.updates._store import Store
from pinset.updates._trust import read_anchor

if TYPE_CHECKING:
    from pinset.reports._reporter import Reporter
    from pinset.reports._sink import ReportSink

_JOIN = 5.0  # seconds
_LONGEST = timedelta(days=3650)


class TufPinSource:
    """
    Keeps a policy up to date from a repository of The Update Framework.

    Until the first update, and whenever there is none, the last one that verified is in force, else *fallback*. Give the
    source to a client, a transport or `pinned_ssl_context`, and enter it for as long as they live::

        source = TufPinSource(url, root=root, fallback=policy, cache_dir=directory)
        async with source, PinnedAsyncClient(source) as client:
            ...

    Entering loads the cache and waits for that; it does not wait for the network (`refresh` does). The work is done in a
    thread of its own, so ``with`` does the same for programs without an event loop. Enter it after a fork, not before.

    Args:
        url: The ``https`` URL below which ``metadata/`` and ``targets/`` lie.
        root: The bytes of an ``N.root.json`` of the repository, shipped with the program: all trust begins there.
        fallback: The policy that the program brings along: in force until there is an update, and what an update may not
            fall below.
        cache_dir: A directory that is kept between runs. None for memory: then whoever is in the way can show the next
            run an old policy that has not expired.
        name: The path of the policy among the targets.
        on_stale: What to do when the signed files have expired and no newer ones come.
        grace: How long after that.
        allow_weaker: Accept policies that enforce less than *fallback*.
        interval: Between looks. As the expiry comes nearer they come closer together.
        min_interval: The least time between looks that refused pins bring about.
        deadline: Seconds for one look. A request that is refused takes so much longer at most.
        cafile, cadata, proxy: For the connection to the repository: trusted CAs as a PEM file, or as PEM text or DER
            bytes, and the URL of a proxy. The environment is not asked.
        control_pins: Pins of the server of the repository. They cannot be updated through it.
        observers: For the `Pinner`: functions, sinks or a reporter.
        on_change: Called with the `SourceStatus` after every look, in the thread of the source.
        clock: Returns the present instant, aware.

    Raises:
        InputError: *url*, *root*, *name* or a length of time cannot be used.
        PolicyError: *fallback* or *control_pins* make no policy.
    """

    def __init__(
        self,
        url: str,
        *,
        root: bytes,
        fallback: Policy | Pins,
        cache_dir: str | PathLike[str] | None,
        name: str = "policy.json",
        on_stale: OnStale | str = OnStale.KEEP,
        grace: timedelta = timedelta(0),
        allow_weaker: bool = False,
        interval: timedelta = timedelta(hours=6),
        min_interval: timedelta = timedelta(minutes=1),
        deadline: float = 10.0,
        cafile: str | None = None,
        cadata: str | bytes | None = None,
        proxy: str | None = None,
        control_pins: Pinner | Policy | Pins | None = None,
        observers: Iterable[Observer | ReportSink | Reporter] = (),
        on_change: Callable[[SourceStatus], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        read_anchor(root)
        _check_name(name)
        _check_times(interval=interval, min_interval=min_interval, grace=grace)
        self._pinner = Pinner(fallback, observers=[self._notice, *observers], clock=clock)
        refresher = Refresher(
            root,
            fetcher=Fetcher(url, cafile=cafile, cadata=cadata, proxy=proxy, control_pins=control_pins),
            store=Store(None if cache_dir is None else Path(cache_dir)),
            name=name,
            floor=None if allow_weaker else self._pinner.policy,
            clock=clock,
            deadline=deadline,
        )
        timing = Timing(interval=interval, grace=grace, on_stale=_one_of(on_stale))
        self._keeper = Keeper(self._pinner, refresher, timing, on_change)
        self._engine = Engine(self._keeper.load, self._keeper.look, self._keeper.wait)
        self._min_interval = min_interval.total_seconds()
        self._forced_lock = threading.Lock()
        self._forced_at: float | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<TufPinSource {self._pinner!r} {self.status.origin}>"

    @property
    def pinner(self) -> Pinner:
        """
        Whose policy the source keeps up to date.
        """
        return self._pinner

    @property
    def status(self) -> SourceStatus:
        """
        How the source is doing.
        """
        return self._keeper.status

    async def refresh(self) -> SourceStatus:
        """
        Look for a newer policy now, or wait for the look under way.

        Returns:
            The status after it; ``error`` says what went wrong.

        Raises:
            RuntimeError: The source was left: nobody would stop what this starts.
        """
        self._check_open()
        await finished(self._engine.ask())
        return self.status

    def refresh_blocking(self) -> SourceStatus:
        """
        The same for threads without an event loop.

        Raises:
            RuntimeError: As above.
        """
        self._check_open()
        self._engine.ask().result()
        return self.status

    async def renew(self, refused: RefusedError) -> bool:
        """
        See `pinset.PinSource.renew`.
        """
        if not self._rules_otherwise(refused) and (look := self._force()) is not None:
            await finished(look)
        return self._rules_otherwise(refused)

    def renew_blocking(self, refused: RefusedError) -> bool:
        """
        See `pinset.PinSource.renew_blocking`.
        """
        if not self._rules_otherwise(refused) and (look := self._force()) is not None:
            look.result()
        return self._rules_otherwise(refused)

    async def __aenter__(self) -> Self:
        self._is_closed = False
        try:
            await finished(self._engine.start())
        except BaseException:  # cancelled: nobody will leave what was not entered
            self._engine.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        await joined(self._engine.stop())

    def __enter__(self) -> Self:
        self._is_closed = False
        self._engine.start().result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        if (thread := self._engine.stop()) is not None:
            thread.join(_JOIN)

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the source was left and looks for nothing any more; enter it again")

    def _notice(self, verdict: Verdict) -> None:
        """A context that another library uses cannot wait for a look; the handshake after this one profits."""
        compared = verdict.outcome in (Outcome.MATCHED, Outcome.MISMATCHED)
        if compared and verdict.decision is Decision.REFUSE:
            self._force()

    def _rules_otherwise(self, refused: RefusedError) -> bool:
        before = None if refused.verdict is None else refused.verdict.rule
        return self._pinner.policy.find(refused.host) != before

    def _force(self) -> Future[None] | None:
        """A look because of a refusal: the one under way or a new one; None if there was one just now."""
        with self._forced_lock:
            if self._is_closed:
                return None
            now = time.monotonic()
            if not self._engine.is_looking:
                if self._forced_at is not None and now - self._forced_at < self._min_interval:
                    return None
                self._forced_at = now
            return self._engine.ask()


def _one_of(on_stale: OnStale | str) -> OnStale:
    try:
        return OnStale(on_stale)
    except ValueError:
        known = ", ".join(f'"{choice}"' for choice in OnStale)
        raise InputError(f"on_stale is one of {known}, not {on_stale!r}") from None


def _check_times(**times: timedelta) -> None:
    for name, length in times.items():
        if not timedelta(0) <= length <= _LONGEST:
            raise InputError(f"{name} is {length}; it has to be between nothing and {_LONGEST.days} days")


def _check_name(name: str) -> None:
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or any(character in name for character in "\\?#%"):
        raise InputError(f"{name!r} is not the path of a target; write policy.json, or team/policy.json")
