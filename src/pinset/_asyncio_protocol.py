"""
The protocol below a stack of streams on asyncio and uvloop.

Rules of this module:

1. Whatever arrives goes into a memory BIO; TLS reads from that very BIO. Reading pauses while it holds too much.
2. The loop is touched only when there is something to wait for. A timer belongs to a wait, not to a call.
3. `Connection.abort` does not wait, so a second cancellation cannot come between a failure and its clean-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from pinset._tls_layer import READ_SIZE

# Reading pauses when more than this was not taken, and goes on when somebody waits for more.
_HIGH_WATER = 256 * 1024
# How much is saved from a connection on which a write has failed.
_RESCUED = 4 * 1024 * 1024


class Connection(asyncio.Protocol):
    """
    What has arrived, and who waits for it: the protocol below a stack of streams.

    Args:
        raw: The connected socket, which the transport closes.

    Attributes:
        loop: The event loop that it lives on.
        incoming: The bytes that have arrived and were not read.
        has_ended: Whether nothing more will arrive.
        is_broken: Whether that came about otherwise than by the peer's decision.
        is_open: Whether something can be sent.
        is_full: Whether the kernel has not taken all that was sent.
        turn: Held by a writer that has to wait; others queue up behind it.
        has_news: Asked about what arrives: whether it is worth waking a reader for. A session ticket or half a record
            is not.
    """

    transport: asyncio.Transport

    def __init__(self, raw: socket.socket) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.raw = raw
        self.incoming = ssl.MemoryBIO()
        self.has_ended = False
        self.is_broken = False
        self.is_open = False
        self.is_full = False
        self.turn = asyncio.Lock()
        self.has_news: Callable[[], bool] | None = None
        self._error: Exception | None = None
        self._is_held = False
        self._reader: asyncio.Future[bool] | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        # A write is done when the kernel has it all: what lies in the transport is lost when it is aborted.
        self.transport.set_write_buffer_limits(0)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.incoming.write(data)
        if self.incoming.pending > _HIGH_WATER and not self._is_held:
            self._is_held = True
            self.transport.pause_reading()
        if self._reader is not None and (self.has_news is None or self.has_news()):
            self._wake_reader()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. The connection stays open for writing."""
        self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self.is_open:
            self.is_open = False
            self._error = exc
            if not self.has_ended:
                self.is_broken = True
                self._rescue()
            self._end()
        self._wake_writers()
        if not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.is_full = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.is_full = False
        self._wake_writers()

    async def wait_for_data(self, deadline: float | None) -> bool:
        """
        Wait until something has arrived, or nothing more will.

        Args:
            deadline: On the clock of the loop, or None to wait for ever.

        Returns:
            False when the deadline has passed.
        """
        if self.has_ended:
            return True
        if self._reader is not None:
            raise RuntimeError("another task already reads from this connection")
        if self._is_held:
            self._is_held = False
            self.transport.resume_reading()
        reader = self._reader = self.loop.create_future()
        timer = None if deadline is None else self.loop.call_at(deadline, _expire, reader)
        try:
            in_time: bool = await reader
        finally:
            self._reader = None
            if timer is not None:
                timer.cancel()
        return in_time

    async def wait_for_room(self) -> None:
        """
        Wait until the kernel has taken all that was sent.
        """
        while self.is_full and self.is_open:
            waiter = self.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        if not self.is_open:
            raise self.failure()

    def send(self, data: bytes) -> None:
        """
        Hand *data* to the transport.

        Raises:
            ConnectionError: The connection is lost or closed.
        """
        # A write that fails closes the transport at once, and we are told in the next turn of the loop.
        if not self.is_open or self.transport.is_closing():
            raise self.failure()
        self.transport.write(data)

    def failure(self) -> ConnectionError:
        """
        Why the connection cannot be used any more.
        """
        # A new one each time: an error that is raised twice keeps the frames of both, and those the connection.
        failure = ConnectionError(str(self._error or "the connection is lost"))
        failure.__cause__ = self._error
        return failure

    def abort(self) -> None:
        """
        Close at once, drop what was not sent, and wake who waits.
        """
        if not self.is_open:
            return
        self.is_open = False
        self.is_broken = True
        self._error = ConnectionAbortedError("the connection was closed on this side")
        self.incoming.read()
        self._end()
        self._wake_writers()
        with contextlib.suppress(RuntimeError):  # its event loop is closed
            self.transport.abort()
        if isinstance(self.loop, asyncio.SelectorEventLoop) or self.loop.is_closed():
            # The selector has let go of the descriptor by now. On other loops it is not ours to close.
            self.raw.close()

    async def wait_until_closed(self) -> None:
        """
        Wait until the descriptor is closed: at most one turn of the loop after `abort`.
        """
        if self.raw.fileno() >= 0 and self.loop is asyncio.get_running_loop():
            await asyncio.shield(self._lost)

    def _rescue(self) -> None:
        # A write that fails closes the transport, and with it goes the answer that a server gave before it hung up on a
        # body it did not want. The descriptor is still open here. An end that follows proves nothing: the error is told
        # only once.
        with contextlib.suppress(OSError):
            while self.incoming.pending < _RESCUED and (data := self.raw.recv(READ_SIZE)):
                self.incoming.write(data)

    def _end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.incoming.write_eof()
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(True)

    def _wake_writers(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def _expire(reader: asyncio.Future[bool]) -> None:
    if not reader.done():
        reader.set_result(False)
