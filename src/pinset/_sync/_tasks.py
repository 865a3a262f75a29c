"""
What the pool needs of whatever runs it: here threads. `pinset._tasks` is the same for event loops.

Rules of this module:

1. pinset starts no thread. A connection is made by the thread of a request that waits for it, so a signal reaches who
   connects, and a program ends when its own threads do.
2. Any thread may use the pool at any time, so its books are changed by one at a time.
3. A connection is used by one request at a time, HTTP/2 included; see `MOST_STREAMS`.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

MOST_STREAMS = 1
"""
How many requests share an HTTP/2 connection. Neither h2 nor httpcore's blocking connection is made for several threads at
a time: two of them are given one stream, and responses go to the wrong request (ADR 7).
"""

C_co = TypeVar("C_co", covariant=True)
E = TypeVar("E", bound="Exclusive")
F = TypeVar("F")
P = ParamSpec("P")
R = TypeVar("R")


class Waits(Protocol[C_co]):
    """
    A request that waits for a connection, as `pinset._books.Waiter`.
    """

    @property
    def connection(self) -> C_co | None:
        """What it got."""

    @property
    def error(self) -> BaseException | None:
        """Or why it got none."""

    def watch(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when any of this has changed."""

    def patience(self) -> tuple[float | None, type[Exception]]:
        """When it has waited long enough, and the error that says so."""
        raise NotImplementedError

    def errand(self) -> Task | None:
        """The making of the connection, if that falls to this request."""


def wait_for(waiter: Waits[C_co]) -> C_co:
    """
    What *waiter* gets, or the error that says why it gets nothing.
    """
    while True:
        changed = threading.Event()
        waiter.watch(changed.set)  # before looking: what changes from now on is noticed
        if waiter.connection is not None:
            return waiter.connection
        if waiter.error is not None:
            raise waiter.error
        if (task := waiter.errand()) is not None and task.run():
            continue
        # The deadline moves when the connection in the making has come a step further.
        until, error = waiter.patience()
        rest = None if until is None else until - time.monotonic()
        if rest is not None and rest <= 0:
            raise error
        changed.wait(rest)


class Task:
    """
    The making of a connection, done by the first thread that takes it on.
    """

    def __init__(self, body: Callable[[F], None], argument: F) -> None:
        self._body = functools.partial(body, argument)
        self._claim = threading.Lock()

    def run(self) -> bool:
        """
        Do it, unless another thread does or did.

        Returns:
            Whether this thread did.
        """
        if not self._claim.acquire(blocking=False):
            return False
        self._body()
        return True

    def cancel(self) -> None:
        """
        Nothing: the flight is marked as unwanted, and its thread sees that.
        """

    def wait(self) -> None:
        """
        See to it that somebody ends it. Whoever is at it closes what it makes.
        """
        self.run()


def shielded() -> contextlib.nullcontext[None]:
    """
    A block that is not cancelled. No thread is.
    """
    return contextlib.nullcontext()


def sleep(seconds: float) -> None:
    """
    Wait for *seconds*.
    """
    time.sleep(seconds)


class Exclusive:
    """
    An object whose `atomic` methods are run one at a time.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()  # what a method calls may come back to its object


def atomic(method: Callable[Concatenate[E, P], R]) -> Callable[Concatenate[E, P], R]:
    """
    A method that sees and leaves its object whole.
    """

    def alone(self: E, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._turn:
            return method(self, *args, **kwargs)

    return alone


def lighten(connection: object, *, shared: bool) -> None:
    """
    Nothing: the locks of httpcore's blocking connections cost little, and another thread may close the client.
    """
