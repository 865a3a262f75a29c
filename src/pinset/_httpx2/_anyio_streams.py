# Made from pinset/_anyio_streams.py by tools/twins.py; change that one.
"""
Streams over anyio's: for trio, and for whatever else anyio runs on.

Sending waits here, so two tasks of one HTTP/2 connection can both be about to send; a lock keeps the records in the
order in which they were encrypted.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING

import anyio
import httpcore2
from anyio.abc import ByteStream, SocketAttribute

from pinset._httpx2._streams import PinsetStream, raise_as_connect_error
from pinset._tls_layer import READ_SIZE, WRITE_SIZE, OriginContext, TLSLayer, is_ended, is_readable

if TYPE_CHECKING:
    from httpcore2 import SOCKET_OPTION

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


async def connect_tcp(
    host: str,
    port: int,
    timeout: float | None,
    local_address: str | None,
    socket_options: Iterable[SOCKET_OPTION] | None,
) -> RawStream:
    """
    See `httpcore2.AsyncNetworkBackend.connect_tcp`.
    """
    try:
        with anyio.fail_after(timeout):
            stream = await anyio.connect_tcp(host, port, local_host=local_address)
        return await adopt(stream, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ())])
    except (OSError, UnicodeError, *_BROKEN) as error:
        raise_as_connect_error(error)


async def connect_unix_socket(
    path: str, timeout: float | None, socket_options: Iterable[SOCKET_OPTION] | None
) -> RawStream:
    """
    See `httpcore2.AsyncNetworkBackend.connect_unix_socket`.
    """
    try:
        with anyio.fail_after(timeout):
            stream = await anyio.connect_unix(path)
        return await adopt(stream, socket_options or ())
    except (OSError, *_BROKEN) as error:
        raise_as_connect_error(error)


async def adopt(stream: ByteStream, options: Iterable[SOCKET_OPTION]) -> RawStream:
    """
    A stream over one of anyio's, with the options set.
    """
    raw = stream.extra(SocketAttribute.raw_socket)
    try:
        for option in options:
            raw.setsockopt(*option)  # pyright: ignore[reportArgumentType, reportCallIssue]  # four forms, which the type does not tell apart
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return RawStream(stream)


class _Stream(PinsetStream):
    """
    Reading, writing and starting TLS, over what a subclass sends and receives.
    """

    async def send(self, item: bytes) -> None:
        """Send all of *item*; errors are anyio's."""
        raise NotImplementedError

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:
        """Receive something; empty at the end, errors are anyio's."""
        raise NotImplementedError

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore2.AsyncNetworkStream.read`. Empty at the end, with or without a close_notify, as in httpcore2."""
        try:
            with anyio.fail_after(timeout):
                return await self.receive(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        except (ssl.SSLError, *_BROKEN) as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore2.AsyncNetworkStream.write`."""
        if not buffer:
            return
        try:
            with anyio.fail_after(timeout):
                await self.send(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except (ssl.SSLError, *_BROKEN) as error:
            raise httpcore2.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext | OriginContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> PinsetStream:
        """See `PinsetStream.start_tls`."""
        try:
            stream = TLSStream(self, ssl_context, server_hostname)
            with anyio.fail_after(timeout):
                await stream.do_handshake()
        except BaseException as error:  # noqa: BLE001 - cancellation leaks the socket too
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise_as_connect_error(error)
        return stream


class RawStream(_Stream):
    """
    A connection before TLS: carries bytes as they are, and can start TLS.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def send(self, item: bytes) -> None:
        """See `_Stream.send`."""
        await self._stream.send(item)

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:
        """See `_Stream.receive`."""
        try:
            return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""

    async def aclose(self) -> None:
        """See `httpcore2.AsyncNetworkStream.aclose`."""
        await self._stream.aclose()

    def accepts(self) -> bool:
        """See `PinsetStream.accepts`."""
        return True

    def get_extra_info(self, info: str) -> object:
        """See `httpcore2.AsyncNetworkStream.get_extra_info`; in addition ``is_ended``."""
        match info:
            case "client_addr":
                return self._stream.extra(SocketAttribute.local_address, None)
            case "server_addr":
                return self._stream.extra(SocketAttribute.remote_address, None)
            case "socket":
                return self._stream.extra(SocketAttribute.raw_socket, None)
            case "is_readable":
                return is_readable(self._stream.extra(SocketAttribute.raw_socket).fileno())
            case "is_ended":
                return is_ended(self._stream.extra(SocketAttribute.raw_socket).fileno())
            case _:
                return None


class TLSStream(_Stream):
    """
    A connection inside TLS.

    Args:
        stream: The connection that carries the records.
        ssl_context: An `OriginContext` for a leg that is pinned, a plain context for one that is not.
        server_hostname: The name to verify.
    """

    def __init__(
        self, stream: _Stream, ssl_context: ssl.SSLContext | OriginContext, server_hostname: str | None
    ) -> None:
        self._stream = stream
        self._layer = TLSLayer(ssl.MemoryBIO(), ssl_context, server_hostname)
        self._tls = self._layer.ssl_object
        self._flushing = anyio.Lock(fast_acquire=True)
        self._sending = anyio.Lock(fast_acquire=True)  # one body at a time: they are cut into pieces

    async def do_handshake(self) -> None:
        """Shake hands; see `PinsetStream.start_tls`."""
        while True:
            try:
                self._layer.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                return

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:
        """See `_Stream.receive`."""
        while (data := self._layer.read(max_bytes)) is None:
            await self._flush()
            await self._fill()
        return data

    async def send(self, item: bytes) -> None:
        """See `_Stream.send`."""
        view = memoryview(item)
        async with self._sending:
            for start in range(0, len(view), WRITE_SIZE):
                self._tls.write(view[start : start + WRITE_SIZE])
                await self._flush()

    async def aclose(self) -> None:
        """See `httpcore2.AsyncNetworkStream.aclose`."""
        await self._stream.aclose()

    def accepts(self) -> bool:
        """See `PinsetStream.accepts`."""
        return self._layer.accepts() and self._stream.accepts()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore2.AsyncNetworkStream.get_extra_info`; in addition ``pinset`` for the verdict, and ``is_ended``."""
        match info:
            case "ssl_object":
                return self._tls
            case "pinset":
                return self._layer.verdict
            case "is_readable" if self._layer.is_readable():
                return True
            case _:
                return self._stream.get_extra_info(info)

    async def _flush(self) -> None:
        outgoing = self._layer.outgoing
        if outgoing.pending:
            async with self._flushing:
                if data := outgoing.read():
                    await self._stream.send(data)

    async def _fill(self) -> None:
        if data := await self._stream.receive():
            self._layer.incoming.write(data)
        else:
            self._layer.incoming.write_eof()
