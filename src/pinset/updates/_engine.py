"""
`Engine`: a thread with an event loop of its own, in which a source looks for policies.

Rules of this module:

1. No event loop of the program ever does this work: clients on asyncio, on trio and without a loop share a source, and a
   blocking client inside a coroutine cannot wait for the loop that it blocks.
2. There is one look at a time. Who asks for one meanwhile waits for that one.
3. To stop is to cancel: a server that hangs does not keep the program from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress

import anyio
import anyio.to_thread

from pinset._tasks import is_asyncio

# A computer that slept has a clock that went on, and timers that did not.
_LONGEST_SLEEP = 300.0  # seconds
_JOIN = 5.0  # seconds
_TIDYING = 2.0  # seconds
_GENERATORS = 10  # httpx and httpcore stack half as many

_logger = logging.getLogger("pinset.updates")


class Engine:
    """
    Runs looks: those that are asked for, and those that are due.

    Args:
        begin: Called once in the thread, before the first look.
        look: One look; it raises nothing.
        wait: Returns the seconds until the next look that is due.
    """

    def __init__(
        self, begin: Callable[[], None], look: Callable[[], Awaitable[None]], wait: Callable[[], float]
    ) -> None:
        self._begin, self._look, self._wait = begin, look, wait
        self._left_behind: list[object] = []
        self._reset()
        _engines.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._asked: asyncio.Event | None = None
        self._begun: Future[None] = Future()
        self._flight: Future[None] | None = None
        self._is_stopping = False

    @property
    def is_looking(self) -> bool:
        """
        Whether a look is under way, or asked for.
        """
        return self._flight is not None

    def start(self) -> Future[None]:
        """
        Start the thread, unless it runs.

        Returns:
            Done when *begin* has returned.
        """
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="pinset-updates", daemon=True)
                thread.start()
                self._thread = thread
            return self._begun

    def ask(self) -> Future[None]:
        """
        Ask for a look, or join the one under way.

        Returns:
            Done when it has ended.
        """
        self.start()
        with self._lock:
            if self._flight is None:
                self._flight = Future()
                if self._loop is not None and self._asked is not None:
                    self._loop.call_soon_threadsafe(self._asked.set)
            return self._flight

    def stop(self) -> threading.Thread | None:
        """
        Stop the thread, in the middle of a look if need be.

        Returns:
            The thread, which is about to end; None if there was none.
        """
        with self._lock:
            thread, loop, task = self._thread, self._loop, self._task
            if thread is None:
                return None
            self._is_stopping = True
            if loop is not None and task is not None:
                with suppress(RuntimeError):  # the loop is closed already
                    loop.call_soon_threadsafe(task.cancel)
            return thread

    def after_fork(self) -> None:
        """
        Begin anew in the child of a fork: the thread stays with the parent, and the lock may be held by nobody.
        """
        # The loop shares the parent's selector, and closing it would disturb the parent: it is kept and never touched.
        self._left_behind.append((self._loop, self._task))
        self._reset()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._work())
        with self._lock:
            self._loop, self._task, self._asked = loop, task, asyncio.Event()
            if self._flight is not None:
                self._asked.set()
            if self._is_stopping:
                task.cancel()
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except Exception:
            _logger.exception("the thread that looks for newer policies has ended")
        finally:
            loop.run_until_complete(_tidy(loop))
            with self._lock:
                begun, flight = self._begun, self._flight
                self._thread = self._loop = self._task = self._asked = self._flight = None
                self._begun, self._is_stopping = Future(), False
            for future in (begun, flight):
                if future is not None and not future.done():
                    future.set_result(None)
            loop.close()

    async def _work(self) -> None:
        self._begin()
        self._begun.set_result(None)
        asked = self._asked
        assert asked is not None  # made before the task runs
        while True:
            seconds = self._wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(seconds, 0.0), _LONGEST_SLEEP)):
                    await asked.wait()
            if not asked.is_set() and self._wait() > 0:
                continue
            with self._lock:
                flight = self._flight = self._flight or Future()
                asked.clear()
            await self._look()
            with self._lock:
                self._flight = None
            flight.set_result(None)


async def _tidy(loop: asyncio.AbstractEventLoop) -> None:
    """Let end what a refused answer has left: the generators of httpx are closed by tasks, one after the other."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_TIDYING):
            for _ in range(_GENERATORS):
                await asyncio.sleep(0)
                if left := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait(left)
    await loop.shutdown_asyncgens()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


async def finished(future: Future[None]) -> None:
    """
    Wait for what happens in the thread, on asyncio and on trio. To be cancelled stops the waiting and nothing else.
    """
    if not is_asyncio():
        limiter = anyio.CapacityLimiter(1)  # of its own: who waits here must not take the places of other threads
        await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True, limiter=limiter)
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: Future[None]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    await done.wait()


async def joined(thread: threading.Thread | None) -> None:
    """
    Wait for the end of a thread that was stopped, on asyncio and on trio.
    """
    if thread is not None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.join, _JOIN)
