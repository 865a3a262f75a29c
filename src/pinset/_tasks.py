"""
What the pool needs of whatever runs it: here an event loop, asyncio's or trio's; `pinset._sync._tasks` is the same for
threads.

An event loop runs one task at a time and changes only at an await, so what does not await needs no lock here.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import anyio

MOST_STREAMS = 100
"""How many requests share an HTTP/2 connection. httpcore announces this many itself and never opens more."""

C_co = TypeVar("C_co", covariant=True)
F = TypeVar("F")
M = TypeVar("M")


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


async def wait_for(waiter: Waits[C_co]) -> C_co:
    """
    What *waiter* gets, or the error that says why it gets nothing.
    """
    while True:
        changed = anyio.Event()
        waiter.watch(changed.set)
        if waiter.connection is not None:
            return waiter.connection
        if waiter.error is not None:
            raise waiter.error
        # The deadline moves when the connection in the making has come a step further.
        until, error = waiter.patience()
        if until is None:
            await changed.wait()
            continue
        if (rest := until - time.monotonic()) <= 0:
            raise error
        with anyio.move_on_after(rest):
            await changed.wait()


class Task:
    """
    A task that belongs to no request.
    """

    def __init__(self, body: Callable[[F], Awaitable[None]], argument: F) -> None:
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        if is_asyncio():
            # A loop keeps no strong reference.
            self._task = asyncio.get_running_loop().create_task(self._run(body, argument))
        else:
            import trio  # noqa: PLC0415 - who runs on trio has it

            trio.lowlevel.spawn_system_task(self._run, body, argument, context=contextvars.copy_context())

    def cancel(self) -> None:
        """
        End the task at its next await, or at its first.
        """
        self._scope.cancel()

    async def wait(self) -> None:
        """
        Wait for the end.
        """
        await self._ended.wait()

    async def _run(self, body: Callable[[F], Awaitable[None]], argument: F) -> None:
        try:
            with self._scope:
                await body(argument)
        finally:
            self._ended.set()


def shielded() -> anyio.CancelScope:
    """
    A block that is not cancelled.
    """
    return anyio.CancelScope(shield=True)


async def sleep(seconds: float) -> None:
    """
    Wait for *seconds*.
    """
    await anyio.sleep(seconds)


def is_asyncio() -> bool:
    """
    Whether the running task is one of asyncio's.
    """
    # Not by the running loop alone: trio as a guest runs on top of one.
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


class Exclusive:
    """
    An object whose `atomic` methods are run one at a time. An event loop does that by itself.
    """


def atomic(method: M) -> M:
    """
    A method that sees and leaves its object whole.
    """
    return method


# httpcore's locks let the event loop turn each time they are taken, which is a tenth of a warm request. On HTTP/1.1 its
# only lock keeps a second request away, and so does the pool; those of HTTP/2 are needed, and can be taken at once.
_HTTP1_LOCKS = ("_state_lock",)
_HTTP2_LOCKS = ("_init_lock", "_state_lock", "_read_lock", "_write_lock")


class _NoLock:
    async def __aenter__(self) -> None:
        """Nobody else is there."""

    async def __aexit__(self, *exc_info: object) -> None:
        """Nobody waits."""


_NO_LOCK = _NoLock()


def lighten(connection: object, *, shared: bool) -> None:
    """
    Take the weight off the locks of one of httpcore's connections.

    Args:
        connection: Where nobody has taken them yet.
        shared: Whether several requests use it at a time (HTTP/2).
    """
    for name in _HTTP2_LOCKS if shared else _HTTP1_LOCKS:
        # The names are httpcore's own business. Where they are different, its locks stay, and cost what they cost.
        if hasattr(connection, name):
            setattr(connection, name, anyio.Lock(fast_acquire=True) if shared else _NO_LOCK)
