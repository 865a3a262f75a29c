# Made from pinset/_pool.py by tools/twins.py; change that one.
"""
The connection pool: a request gets a connection, is sent, and gives the connection back.

Rules of this module:

1. Who gets which connection is `Assignment`'s to say; here is what has to be waited for: connecting, sending, closing.
2. Every road out of a request gives back what it holds: error, timeout, cancellation.
3. A connection is made by a task of its own. Requests wait for it with their own deadlines, and when the last one has
   left, it ends.
4. What the server promises not to have processed is sent again, once, if its body can be. Nothing else is. A connection
   that ends after it has served requests does not count: the work goes on, and a server that ends every connection after
   three requests leaves 57 of 60 for the next ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Self

import h2.events
import httpcore2

from pinset._httpx2._assignment import Assignment
from pinset._httpx2._books import Connection, Flight
from pinset._httpx2._connect import Connector, Key
from pinset._httpx2._http2 import REFUSED_STREAM
from pinset._tasks import Task, shielded, wait_for

_PORTS = {b"http": 80, b"ws": 80, b"https": 443, b"wss": 443}
# Each may have become unfit between its handshake and its first request. That so many do in a row is a fault of ours or of
# a program that replaces its policy all the time, and nobody is to be overrun by handshakes for it.
_MOST_UNFIT = 10
_UNFIT = f"{_MOST_UNFIT} connections in a row became unacceptable to the policy before they could be used"
_CLOSED = "the client was closed while the request waited for a connection"


class PinnedPool:
    """
    A pool with httpx2's limits.

    Args:
        connector: Makes the connections.
        max_connections: The most connections at once, or None for any number.
        max_keepalive_connections: The most idle ones, or None for any number.
        keepalive_expiry: Seconds after which an idle connection is not used again, or None for never.
        rereadable: The types of request bodies that can be read more than once.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        max_connections: int | None,
        max_keepalive_connections: int | None,
        keepalive_expiry: float | None,
        rereadable: tuple[type, ...] = (),
    ) -> None:
        self._connector = connector
        self._rereadable = rereadable
        self._tasks: set[Task] = set()
        self._is_closed = False
        self._assignment = Assignment(
            max_connections=max_connections,
            max_idle=max_keepalive_connections,
            keepalive_expiry=keepalive_expiry,
            shares=connector.shares,
            start=self._start,
            cancel=self._cancel,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self._assignment!r}]>"

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """
        Send *request* over a connection of its origin.

        Raises:
            RefusedError: The pins refuse the chain of a new connection.
            httpcore2.PoolTimeout: No connection came free in time.
            httpcore2.UnsupportedProtocol: The URL has another scheme than http, https, ws and wss.
            httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException: As in httpcore2.
            RuntimeError: The pool was closed.
        """
        key = _key(request.url)
        body = None
        if self._connector.http2 and not isinstance(request.stream, self._rereadable):
            request.stream = body = _RequestBody(request.stream)  # type: ignore[arg-type]  # httpx2's are async
        return await self._send(key, request, body)

    async def aclose(self) -> None:
        """
        Close every connection, those in the making and in use included, and refuse whoever waits.
        """
        self._is_closed = True
        tasks = list(self._tasks)
        self._assignment.close(lambda: httpcore2.ConnectError(_CLOSED))
        with shielded():
            await self._bury()
            for task in tasks:
                await task.wait()

    async def __aenter__(self) -> Self:
        self._is_closed = False  # a transport may serve one client after another
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _send(self, key: Key, request: httpcore2.Request, body: _RequestBody | None) -> httpcore2.Response:
        was_refused = False
        while True:
            connection = await self._acquire_accepted(key, request)
            protocol = connection.protocol
            try:
                response = await protocol.http.handle_async_request(
                    request if protocol.forward is None else protocol.forward(request)
                )
            except httpcore2.ConnectionNotAvailable:
                # It closed between being taken and being used; nothing was sent.
                connection.retired = True
                await self._release(connection)
            except httpcore2.RemoteProtocolError as error:
                await self._release(connection)
                if not _is_unprocessed(error) or (body is not None and body.was_begun):
                    raise
                if protocol.frames is None or not protocol.frames.has_served:
                    if was_refused:
                        raise
                    was_refused = True
            except BaseException:
                await self._release(connection, at_end=False)
                raise
            else:
                content = _ResponseBody(response.stream, connection, self._release)  # type: ignore[arg-type]  # likewise
                return httpcore2.Response(
                    response.status, headers=response.headers, content=content, extensions=response.extensions
                )

    async def _acquire_accepted(self, key: Key, request: httpcore2.Request) -> Connection:
        for _ in range(_MOST_UNFIT):
            connection = await self._acquire(key, request)
            if connection.protocol.stream.accepts():
                return connection
            connection.retired = True  # the policy was replaced between the handshake, or its turn, and now
            await self._release(connection)
        raise httpcore2.ConnectError(_UNFIT)

    async def _acquire(self, key: Key, request: httpcore2.Request) -> Connection:
        if self._is_closed:
            raise RuntimeError("Cannot send a request, as the transport has been closed.")
        assignment = self._assignment
        connection = assignment.take(key)
        if connection is not None and not assignment.has_doomed:
            return connection
        waiter = assignment.enqueue(key, request.extensions) if connection is None else None
        try:
            await self._bury()
            return await wait_for(waiter) if waiter is not None else connection  # type: ignore[return-value]
        except BaseException:
            with shielded():
                if waiter is not None:
                    flight, connection = assignment.leave(waiter), waiter.connection
                    if flight is not None and flight.task is not None:
                        await flight.task.wait()
                if connection is not None:
                    await self._release(connection)
            raise

    async def _release(self, connection: Connection, *, at_end: bool = True) -> None:
        self._assignment.give_back(connection, at_end=at_end)
        if self._assignment.has_doomed:
            with shielded():
                await self._bury()

    async def _bury(self) -> None:
        """Close what is to be closed."""
        while (connection := self._assignment.next_doomed()) is not None:
            try:
                await connection.protocol.aclose()
            finally:
                self._assignment.closed(connection)

    # Connections in the making.

    def _start(self, flight: Flight) -> None:
        flight.task = Task(self._fly, flight)
        self._tasks.add(flight.task)

    def _cancel(self, flight: Flight) -> None:
        if flight.task is not None:
            flight.task.cancel()

    async def _fly(self, flight: Flight) -> None:
        """Make a connection; the body of a task, so that whatever happens is told to those who wait."""
        try:
            if flight.instead_of is not None:
                await flight.instead_of.protocol.aclose()
            flight.check()
            protocol = await self._connector.connect(
                httpcore2.Origin(*flight.origin.key),
                flight.owner.extensions,
                on_step=lambda: self._assignment.stepped(flight),
                on_change=lambda: self._assignment.changed(flight),
            )
        except BaseException as error:
            self._assignment.failed(flight, error)
            if not isinstance(error, Exception):
                raise
        else:
            self._assignment.landed(flight, protocol)
        finally:
            assert flight.task is not None  # see `_start`
            self._tasks.discard(flight.task)
            with shielded():
                await self._bury()


class _RequestBody:
    """
    A request body that tells whether anybody has begun to read it.
    """

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream
        self.was_begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.was_begun = True
        return aiter(self._stream)


class _ResponseBody:
    """
    A response body that gives its connection back when it is closed.
    """

    def __init__(
        self, stream: AsyncIterable[bytes], connection: Connection, release: Callable[..., Awaitable[None]]
    ) -> None:
        self._stream = stream
        self._connection: Connection | None = connection
        self._release = release
        self._is_whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
            self._is_whole = True
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the response; its connection serves the next request, or is closed."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        try:
            if self._is_whole and connection.protocol.frames is None:
                await self._stream.aclose()  # type: ignore[attr-defined]  # httpcore2's response streams have it
            else:  # this may wait
                with shielded():
                    await self._stream.aclose()  # type: ignore[attr-defined]  # likewise
        except BaseException:  # the trace of the request has raised, and httpcore2 has not noted the end
            self._is_whole = False
            raise
        finally:
            await self._release(connection, at_end=self._is_whole)


def _key(url: httpcore2.URL) -> Key:
    port = _PORTS.get(url.scheme)
    if port is None:
        scheme = url.scheme.decode("ascii", "replace")
        raise httpcore2.UnsupportedProtocol(
            f"Request URL has an unsupported protocol '{scheme}://'."
            if scheme
            else "Request URL is missing an 'http://' or 'https://' protocol."
        )
    return url.scheme, url.host, port if url.port is None else url.port


def _is_unprocessed(error: httpcore2.RemoteProtocolError) -> bool:
    """The server promises that it has done nothing about the request (RFC 9113 section 8.7)."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, h2.events.StreamReset) and cause.error_code == REFUSED_STREAM
