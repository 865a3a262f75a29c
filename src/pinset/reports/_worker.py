"""
The worker: one daemon thread with an event loop, for all sinks of the process.

It starts with the first report, so that programs without one never pay for it. At exit it is given a moment for what is
still on its way; after a fork, the child begins without one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

_EXIT_BUDGET = 2.0
_JOIN_BUDGET = 0.5

_logger = logging.getLogger("pinset.reports")


class Post(Protocol):
    """
    What the worker knows of those it works for.
    """

    def flush(self, budget: float) -> bool:
        """Wait until everything was delivered or given up, for *budget* seconds at most."""
        raise NotImplementedError

    def forget(self) -> None:
        """This is the child of a fork: what was on its way belongs to the parent, and locks may be held by nobody."""


class Worker:
    """
    The thread and its event loop.
    """

    def __init__(self) -> None:
        self._posts: weakref.WeakSet[Post] = weakref.WeakSet()
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._waiting: list[Callable[[], object]] = []
        self._is_over = False

    def enlist(self, post: Post) -> None:
        """
        Look after *post* at exit and after a fork.
        """
        with self._lock:
            self._posts.add(post)

    def call(self, function: Callable[[], object]) -> None:
        """
        Call *function* on the loop, from any thread, and return at once.

        Raises:
            RuntimeError: The process is ending, or has no thread to spare.
        """
        with self._lock:
            if self._is_over:
                raise RuntimeError("the process is ending")
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)
                return
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="pinset-reports", daemon=True)
                thread.start()
                self._thread = thread
                _before_exit(self.finish)
            self._waiting.append(function)

    def flush(self, budget: float) -> None:
        """
        Wait for what is on its way, for all posts together *budget* seconds at most.
        """
        deadline = time.monotonic() + budget
        with self._lock:
            posts = list(self._posts)
        for post in posts:
            post.flush(max(0.0, deadline - time.monotonic()))

    def finish(self) -> None:
        """
        Wait a moment for what is on its way, then end the thread.
        """
        self.flush(_EXIT_BUDGET)
        with self._lock:
            self._is_over = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_JOIN_BUDGET)

    def after_fork(self) -> None:
        """
        Begin again in the child of a fork, without the parent's thread, loop and reports.
        """
        # The loop shares the parent's selector, and closing it would disturb the parent: it is kept and never touched.
        self._left_behind = (getattr(self, "_left_behind", None), self._loop)
        self._forget()
        for post in list(self._posts):
            post.forget()

    def _run(self) -> None:
        import asyncio  # noqa: PLC0415 - httpx alone does not import it, and few programs ever report

        loop = asyncio.new_event_loop()
        with self._lock:
            self._loop = loop
            waiting, self._waiting = self._waiting, []
        for function in waiting:
            loop.call_soon(function)
        while not self._is_over:
            try:
                loop.run_forever()
            except BaseException:  # a sink raised SystemExit; the others still have work
                _logger.exception("a report sink tried to end the process")
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def _before_exit(function: Callable[[], object]) -> None:
    # atexit comes after the thread pools were shut, and without those there is no name resolution: a report that is
    # sent then would fail. What concurrent.futures itself uses comes before, the last registered first: so it has to be
    # imported now, which whoever has looked up a host from a coroutine has done.
    import concurrent.futures.thread  # noqa: F401, PLC0415

    getattr(threading, "_register_atexit", atexit.register)(function)


worker = Worker()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker.after_fork)
