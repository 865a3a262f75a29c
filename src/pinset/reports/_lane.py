"""
`Lane`: one sink with its queue, its duplicates and its counters.

Rules of this module:

1. The caller pays a dictionary and a lock. It never waits for a sink, and nothing is raised.
2. Whatever comes in ends in exactly one counter: sent, deduplicated, dropped or failed, the last two by reason. Until
   then it is pending. The sums hold at every instant and under every cancellation.
3. Lanes know nothing of each other: one that hangs holds up no other.
4. A report that was lost does not silence those that follow: its kind is let through again after a while.
"""

from __future__ import annotations

import contextvars
import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinset.reports._aside import Aside
from pinset.reports._duplicates import Duplicates
from pinset.reports._report import PinReport
from pinset.reports._sink import ReportSink, SinkError, TryAgainError
from pinset.reports._worker import worker

if TYPE_CHECKING:
    import asyncio

_HOLD = 300.0  # seconds until a kind is tried again after a report of it was lost
_LONGEST_WAIT = 3600.0  # whatever Retry-After asks for

_logger = logging.getLogger("pinset.reports")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    How reports are delivered.

    Attributes:
        window: Seconds in which the same report is sent once.
        queue: How many reports may wait for a sink.
        timeout: Seconds for one attempt.
        attempts: How often a report is tried.
        backoff: Seconds before the second attempt; each further one waits twice as long.
    """

    window: float
    queue: int
    timeout: float
    attempts: int
    backoff: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkCounts:
    """
    What became of the reports of one sink: *submitted* is the sum of all others.

    Attributes:
        submitted: Reports that came in.
        sent: Reports that the sink took.
        deduplicated: The same as one before, and not sent.
        dropped: Not sent, by reason: ``queue-full``, ``recursion``, ``closed``, ``forked``, ``no-worker``.
        failed: The sink did not take them, by reason: ``timeout``, ``transport``, ``tls``, ``rejected``, ``server``,
            ``error``.
        pending: Waiting, or on their way.
    """

    submitted: int
    sent: int
    deduplicated: int
    dropped: Mapping[str, int]
    failed: Mapping[str, int]
    pending: int


@dataclass(eq=False, slots=True)
class _Ticket:
    kind: Hashable
    report: PinReport
    context: contextvars.Context


class Lane:
    """
    The way of reports to one sink.

    Args:
        sink: Takes them.
        delivery: How.
        clock: Returns seconds that never go back.
    """

    def __init__(self, sink: ReportSink, delivery: Delivery, clock: Callable[[], float]) -> None:
        self.sink = sink
        self._delivery = delivery
        self._clock = clock
        self._duplicates = Duplicates(delivery.window)
        self._queue: deque[_Ticket] = deque()
        self._under_way: _Ticket | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_delivering = False
        self._is_closed = False
        self._submitted = self._admitted = self._sent = self._deduplicated = 0
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._aside = Aside(f"pinset-{sink.name}-note")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        worker.enlist(self)

    # -- the caller's side ---------------------------------------------------------------------------------------------

    def admit(self, kind: Hashable) -> int | None:
        """
        Count a report in; None if it goes no further, otherwise how many of its kind were held back.

        What was admitted is to be handed to `enqueue`.
        """
        with self._lock:
            self._submitted += 1
            if self._is_closed:
                self._dropped["closed"] += 1
                return None
            suppressed = self._duplicates.admit(kind, self._clock())
            if suppressed is None:
                self._deduplicated += 1
            else:
                self._admitted += 1
            return suppressed

    def enqueue(self, kind: Hashable, report: PinReport, context: contextvars.Context) -> None:
        """
        Have an admitted report delivered.

        Args:
            kind: What it was admitted as.
            report: It.
            context: Of the caller, so that logs and traces belong to the request.
        """
        with self._lock:
            self._admitted -= 1
            if self._is_closed:
                self._dropped["closed"] += 1
                self._idle.notify_all()
                return
            if len(self._queue) >= self._delivery.queue:
                # The first ones of an incident say most, so what comes last is dropped.
                self._dropped["queue-full"] += 1
                self._duplicates.reopen(kind, self._clock(), report.suppressed + 1)
                self._idle.notify_all()
                return
            self._queue.append(_Ticket(kind, report, context))
            if self._is_delivering:
                return
            self._is_delivering = True
        try:
            worker.call(self._start)
        except RuntimeError:
            self._drop_all("no-worker")

    def drop(self, reason: str) -> None:
        """
        Count a report that goes no further.
        """
        with self._lock:
            self._submitted += 1
            self._dropped[reason] += 1

    def counts(self) -> SinkCounts:
        """
        What became of the reports so far.
        """
        with self._lock:
            return SinkCounts(
                submitted=self._submitted,
                sent=self._sent,
                deduplicated=self._deduplicated,
                dropped=dict(+self._dropped),
                failed=dict(self._failed),
                pending=self._pending(),
            )

    def flush(self, budget: float) -> bool:
        """
        Wait until nothing is pending and every loss was noted; see `pinset.reports._worker.Post`.
        """
        with self._lock:
            return self._idle.wait_for(lambda: not self._pending() and not self._is_delivering, budget)

    def refuse(self) -> None:
        """
        Take nothing more.
        """
        with self._lock:
            self._is_closed = True

    def give_up(self) -> None:
        """
        Drop what is pending, and end an attempt that is under way.
        """
        self._drop_all("closed")
        if (task := self._task) is not None:
            with suppress(RuntimeError):  # the process is ending, and the loop with it
                worker.call(task.cancel)

    def forget(self) -> None:
        """
        Begin again in the child of a fork; see `pinset.reports._worker.Post`.
        """
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._task = None
        self._dropped["forked"] += self._pending()
        self._admitted = 0
        self._queue.clear()
        self._under_way = None
        self._is_delivering = False

    def _pending(self) -> int:
        return self._admitted + len(self._queue) + (self._under_way is not None)

    def _drop_all(self, reason: str) -> None:
        with self._lock:
            self._dropped[reason] += len(self._queue) + (self._under_way is not None)
            self._queue.clear()
            self._under_way = None  # should it arrive after all, nobody counts it twice
            self._is_delivering = False
            self._idle.notify_all()

    # -- the worker's side ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        import asyncio  # noqa: PLC0415 - httpx alone does not import it, and few programs ever report

        self._task = asyncio.get_running_loop().create_task(self._deliver_all())

    async def _deliver_all(self) -> None:
        while (ticket := self._next()) is not None:
            error = await self._deliver(ticket)
            self._settle(ticket, error)
            if error is not None:
                await self._note(error)

    def _next(self) -> _Ticket | None:
        with self._lock:
            if not self._queue:
                self._is_delivering = False
                self._task = None
                self._idle.notify_all()
                return None
            self._under_way = self._queue.popleft()
            return self._under_way

    def _settle(self, ticket: _Ticket, error: SinkError | None) -> None:
        with self._lock:
            if self._under_way is not ticket:
                return  # given up in the meantime, and counted
            self._under_way = None
            if error is None:
                self._sent += 1
            else:
                self._failed[error.reason] += 1
                self._duplicates.reopen(ticket.kind, self._clock() + _HOLD, ticket.report.suppressed + 1)
            self._idle.notify_all()

    async def _deliver(self, ticket: _Ticket) -> SinkError | None:
        """Try until it is delivered; why it was not, or None."""
        import asyncio  # noqa: PLC0415 - as above

        error: SinkError | None = None
        for wait in self._waits():
            error = await self._attempt(ticket)
            if not isinstance(error, TryAgainError) or wait is None:
                break
            await asyncio.sleep(min(max(wait, error.after or 0.0), _LONGEST_WAIT))
        return error

    def _waits(self) -> Iterator[float | None]:
        """The seconds to wait after each attempt, None after the last; jittered, so that a fleet does not march in step."""
        for number in range(self._delivery.attempts - 1):
            yield self._delivery.backoff * 2**number * random.uniform(0.5, 1.0)
        yield None

    async def _attempt(self, ticket: _Ticket) -> SinkError | None:
        import asyncio  # noqa: PLC0415 - as above

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._delivery.timeout):
                await loop.create_task(self.sink.deliver(ticket.report), context=ticket.context)
        except TimeoutError as error:
            return TryAgainError("timeout", f"no answer within {self._delivery.timeout:g} s ({error})")
        except SinkError as error:
            return error
        except BaseException as error:  # SystemExit too: it must not end the loop of the others
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            return SinkError("error", f"{type(error).__name__}: {error}")
        return None

    async def _note(self, error: SinkError) -> None:
        """Say in the log that a report was lost. Handlers may block, so it is said from another thread, and not waited for long."""
        import asyncio  # noqa: PLC0415 - as above

        def note() -> None:
            _logger.warning("a report to %s was lost (%s): %s", self.sink.name, error.reason, error)

        with suppress(TimeoutError):
            async with asyncio.timeout(self._delivery.timeout):
                await self._aside.run(note)
