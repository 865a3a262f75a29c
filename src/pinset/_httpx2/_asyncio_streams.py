# Made from pinset/_asyncio_streams.py by tools/twins.py; change that one.
"""
Streams for asyncio and uvloop, directly above the protocol.

Records are encrypted and handed to the transport without an await between: two writers cannot mix them up, and one that
is cancelled never leaves half a record. Each stream takes what has arrived from the one below and puts what it sends
into it; only the connection at the bottom is ever waited for. So TLS in TLS costs no task and no queue.
"""

from __future__ import annotations

import asyncio
import ssl

import httpcore2

from pinset._asyncio_protocol import Connection
from pinset._httpx2._streams import PinsetStream, raise_as_connect_error
from pinset._tls_layer import READ_SIZE, WRITE_SIZE, OriginContext, TLSLayer, is_ended, is_readable


class _Stream(PinsetStream):
    """
    Reading, writing and starting TLS, over what a subclass takes from the connection and puts into it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def take(self, max_bytes: int) -> bytes | None:
        """
        What has arrived: None if nothing has, empty at the end.

        Raises:
            OSError: The connection was lost, or TLS failed.
        """
        raise NotImplementedError

    def put(self, data: bytes | memoryview) -> None:
        """
        Hand *data* down to the transport.

        Raises:
            OSError: The connection was lost, or TLS failed.
        """
        raise NotImplementedError

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore2.AsyncNetworkStream.read`. Empty at the end, with or without a close_notify, as in httpcore2."""
        connection = self.connection
        deadline = None
        try:
            while (data := self.take(max_bytes)) is None:
                if timeout is not None and deadline is None:
                    deadline = connection.loop.time() + timeout
                if not await connection.wait_for_data(deadline):
                    raise httpcore2.ReadTimeout(f"nothing arrived in {timeout} seconds")
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore2.AsyncNetworkStream.write`."""
        connection = self.connection
        try:
            if len(buffer) <= WRITE_SIZE and not connection.turn.locked():
                if buffer:
                    self.put(buffer)
                if not connection.is_full:
                    return
                buffer = b""
            async with asyncio.timeout(timeout):
                await self._write_slowly(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(f"the peer did not take the data in {timeout} seconds") from error
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def _write_slowly(self, buffer: bytes) -> None:
        connection = self.connection
        view = memoryview(buffer)
        async with connection.turn:
            await connection.wait_for_room()
            for start in range(0, len(view), WRITE_SIZE):
                self.put(view[start : start + WRITE_SIZE])
                await asyncio.sleep(0)  # the kernel may take it all at once, again and again
                await connection.wait_for_room()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext | OriginContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> PinsetStream:
        """See `PinsetStream.start_tls`."""
        try:
            stream = TLSStream(self, ssl_context, server_hostname)
            await stream.do_handshake(timeout)
        except BaseException as error:  # noqa: BLE001 - cancellation leaks the socket too
            self.connection.abort()
            if isinstance(error, Exception):
                await self.connection.wait_until_closed()
            raise_as_connect_error(error)
        return stream

    async def aclose(self) -> None:
        """
        See `httpcore2.AsyncNetworkStream.aclose`. The descriptor is closed afterwards; who waits gets an error.
        """
        self.connection.abort()
        await self.connection.wait_until_closed()


class RawStream(_Stream):
    """
    A connection before TLS: carries bytes as they are, and can start TLS.
    """

    def take(self, max_bytes: int) -> bytes | None:
        """See `_Stream.take`."""
        connection = self.connection
        if connection.incoming.pending:
            return connection.incoming.read(max_bytes)
        if not connection.has_ended:
            return None
        if connection.is_broken:
            raise connection.failure()
        return b""

    def put(self, data: bytes | memoryview) -> None:
        """See `_Stream.put`."""
        self.connection.send(bytes(data))

    def accepts(self) -> bool:
        """See `PinsetStream.accepts`. A closed connection, or one of another event loop, carries nothing."""
        return self.connection.is_open and self.connection.loop is asyncio.get_running_loop()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore2.AsyncNetworkStream.get_extra_info`; in addition ``is_ended``."""
        connection = self.connection
        match info:
            case "client_addr":
                return _address(connection, "sockname")
            case "server_addr":
                return _address(connection, "peername")
            case "socket":
                return connection.transport.get_extra_info("socket")
            case "is_readable":
                # The flags first: when they are set, what the descriptor says is old.
                return bool(connection.incoming.pending) or connection.has_ended or is_readable(connection.raw.fileno())
            case "is_ended":
                return connection.has_ended or is_ended(connection.raw.fileno())
            case _:
                return None


def _address(connection: Connection, name: str) -> object:
    try:
        address = connection.transport.get_extra_info(name)
    except (OSError, AttributeError):  # uvloop asks the socket, and there is none any more
        return None
    return with_scope(address)


def with_scope(address: object) -> object:
    """
    A socket address as anyio gives it: a scope belongs to the host, and a flow label to nobody.
    """
    match address:
        case (host, port, _, 0):
            return host, port
        case (host, port, _, scope):
            return f"{host}%{scope}", port
        case _:
            return address


class TLSStream(_Stream):
    """
    A connection inside TLS.

    Args:
        below: The stream that carries the records: raw, or TLS itself.
        ssl_context: An `OriginContext` for a leg that is pinned, a plain context for one that is not.
        server_hostname: The name to verify.
    """

    def __init__(
        self, below: _Stream, ssl_context: ssl.SSLContext | OriginContext, server_hostname: str | None
    ) -> None:
        super().__init__(below.connection)
        self._below = below
        self._is_inner = isinstance(below, TLSStream)
        # Directly above the connection, OpenSSL reads from the BIO that data arrives in: nothing is copied.
        incoming = ssl.MemoryBIO() if self._is_inner else below.connection.incoming
        self._layer = TLSLayer(incoming, ssl_context, server_hostname)
        self._incoming = incoming
        self._outgoing = self._layer.outgoing
        self._tls = self._layer.ssl_object
        self._put_records = below.put if self._is_inner else below.connection.send

    async def do_handshake(self, timeout: float | None) -> None:
        """Shake hands; see `PinsetStream.start_tls`."""
        deadline = None if timeout is None else self.connection.loop.time() + timeout
        while True:
            try:
                self._layer.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not (self._is_inner and self._fill()) and not await self.connection.wait_for_data(deadline):
                    raise TimeoutError(f"the handshake was not done in {timeout} seconds") from None
            else:
                self.connection.has_news = self._has_news
                return

    def take(self, max_bytes: int) -> bytes | None:
        """See `_Stream.take`."""
        while (data := self._layer.read(max_bytes)) is None:
            if self._outgoing.pending and self.connection.is_open:
                self._flush()
            if not (self._is_inner and self._fill()):
                return None
        if not data and self.connection.is_broken:
            raise self.connection.failure()
        return data

    def put(self, data: bytes | memoryview) -> None:
        """See `_Stream.put`."""
        self._tls.write(data)
        self._put_records(self._outgoing.read())

    def accepts(self) -> bool:
        """See `PinsetStream.accepts`."""
        return self._layer.accepts() and self._below.accepts()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore2.AsyncNetworkStream.get_extra_info`; in addition ``pinset`` for the verdict, and ``is_ended``."""
        match info:
            case "ssl_object":
                return self._tls
            case "pinset":
                return self._layer.verdict
            case "is_readable":
                return self._is_readable() or self._below.get_extra_info(info)
            case _:
                return self._below.get_extra_info(info)

    def _has_news(self) -> bool:
        # A server that asks for a certificate after the handshake waits for an answer, which the reader sends.
        return self._is_readable() or bool(self._outgoing.pending)

    def _is_readable(self) -> bool:
        try:
            if self._is_inner:
                self._fill()
        except OSError:
            return True
        return self._layer.is_readable()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._put_records(self._outgoing.read())

    def _fill(self) -> bool:
        """Move what the TLS below has decrypted into our own BIO; False if there is nothing."""
        data = self._below.take(READ_SIZE)
        if data is None:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True
