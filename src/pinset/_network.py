"""
The network backend: connect, TLS, pin stamp, clean-up on cancel.

httpcore's public seam (`httpcore.AsyncNetworkBackend`), over anyio's raw streams on asyncio, uvloop and trio. TLS is
ours: a memory BIO on either side of a `PinnedSSLObject`, so that the outgoing BIO is emptied only after the object had its
say. The stream that `start_tls` returns can itself `start_tls`: TLS in TLS, for HTTPS proxies.

Errors are httpcore's, by what was being done: connecting and shaking hands, reading, or writing.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import anyio
import httpcore
from anyio.abc import ByteStream, SocketAttribute

from pinset._errors import ContextError
from pinset._pinner import Stamp
from pinset._tls import Enforcement, PinnedSSLObject
from pinset._verdict import Decision, Verdict

if TYPE_CHECKING:
    from httpcore._backends.base import SOCKET_OPTION

_READ_SIZE = 64 * 1024
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class OriginContext:
    """
    What httpcore is given in place of the ``ssl.SSLContext`` for origins.

    It tells `start_tls` apart which leg it is on: a proxy's own leg comes with a plain context and is never pinned. And
    it keeps the context as it was made: httpcore sets the ALPN list before every connection, which on a shared context
    mixes up HTTP/1.1 and HTTP/2 clients.
    """

    context: ssl.SSLContext
    enforcement: Enforcement

    def set_alpn_protocols(self, protocols: Iterable[str]) -> None:
        """Ignored: the list was set when the context was made."""


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """
    A backend whose streams shake hands through pinset.
    """

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkBackend.connect_tcp`."""
        try:
            with anyio.fail_after(timeout):
                stream = await anyio.connect_tcp(host, port, local_host=local_address)
        except (TimeoutError, OSError, *_BROKEN) as error:
            _raise_as_connect_error(error)
        return _with_options(stream, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ())])

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkBackend.connect_unix_socket`."""
        try:
            with anyio.fail_after(timeout):
                stream = await anyio.connect_unix(path)
        except (TimeoutError, OSError, *_BROKEN) as error:
            _raise_as_connect_error(error)
        return _with_options(stream, socket_options or ())

    async def sleep(self, seconds: float) -> None:
        """See `httpcore.AsyncNetworkBackend.sleep`."""
        await anyio.sleep(seconds)


def _with_options(stream: ByteStream, options: Iterable[SOCKET_OPTION]) -> RawStream:
    raw = stream.extra(SocketAttribute.raw_socket)
    for option in options:
        raw.setsockopt(*option)  # pyright: ignore[reportArgumentType, reportCallIssue]  # four forms, which the type does not tell apart
    return RawStream(stream)


def _raise_as_connect_error(error: BaseException) -> NoReturn:
    match error:
        case TimeoutError():  # before OSError, of which it is one
            raise httpcore.ConnectTimeout(str(error)) from error
        case OSError() | anyio.BrokenResourceError() | anyio.ClosedResourceError():  # ssl.SSLError is an OSError
            raise httpcore.ConnectError(str(error)) from error
        case _:
            raise error


class _Stream(httpcore.AsyncNetworkStream):
    """
    Reading, writing and starting TLS, over what a subclass sends and receives.
    """

    async def send(self, item: bytes) -> None:
        """Send all of *item*; errors are anyio's."""
        raise NotImplementedError

    async def receive(self, max_bytes: int = _READ_SIZE) -> bytes:
        """Receive something; empty at the end, errors are anyio's."""
        raise NotImplementedError

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore.AsyncNetworkStream.read`. Empty at the end, with or without a close_notify, as in httpcore."""
        try:
            with anyio.fail_after(timeout):
                return await self.receive(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except (ssl.SSLError, *_BROKEN) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """
        See `httpcore.AsyncNetworkStream.write`.

        Raises:
            RefusedError: The policy has changed, and the one in force now refuses this connection.
        """
        if not buffer:
            return
        try:
            with anyio.fail_after(timeout):
                await self.send(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except (ssl.SSLError, *_BROKEN) as error:
            raise httpcore.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext | OriginContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """
        Shake hands over this stream, and close it if that fails or is cancelled.

        Raises:
            httpcore.ConnectError: The connection or TLS failed.
            httpcore.ConnectTimeout: *timeout* seconds have passed.
            RefusedError: The pins refuse the chain.
        """
        try:
            stream = TLSStream(self, ssl_context, server_hostname)
            with anyio.fail_after(timeout):
                await stream.do_handshake()
        except BaseException as error:  # noqa: BLE001 - cancellation leaks the socket too
            with anyio.CancelScope(shield=True):
                await self.aclose()
            _raise_as_connect_error(error)
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

    async def receive(self, max_bytes: int = _READ_SIZE) -> bytes:
        """See `_Stream.receive`."""
        try:
            return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""

    async def aclose(self) -> None:
        """See `httpcore.AsyncNetworkStream.aclose`."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore.AsyncNetworkStream.get_extra_info`."""
        match info:
            case "client_addr":
                return self._stream.extra(SocketAttribute.local_address, None)
            case "server_addr":
                return self._stream.extra(SocketAttribute.remote_address, None)
            case "socket":
                return self._stream.extra(SocketAttribute.raw_socket, None)
            case "is_ended":
                return False
            case "is_readable":
                return _is_readable(self._stream.extra(SocketAttribute.raw_socket).fileno())
            case _:
                return None


def _is_readable(descriptor: int) -> bool:
    """Whether a read would return at once: the server has closed, or says what nobody asked for."""
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class TLSStream(_Stream):
    """
    A connection inside TLS.

    Args:
        stream: The connection that carries the records.
        ssl_context: An `OriginContext` for the leg to the origin, a plain context for a proxy's own leg.
        server_hostname: The name to verify.
    """

    def __init__(
        self, stream: _Stream, ssl_context: ssl.SSLContext | OriginContext, server_hostname: str | None
    ) -> None:
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._flushing = anyio.Lock(fast_acquire=True)
        self._stamp: Stamp | None = None
        self._enforcement: Enforcement | None = None
        if isinstance(ssl_context, OriginContext):
            self._enforcement = ssl_context.enforcement
            ssl_context = ssl_context.context
        self._tls = ssl_context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        if self._enforcement is not None:
            _pinned(self._tls).enforce(self._enforcement)

    async def do_handshake(self) -> None:
        """Shake hands; see `_Stream.start_tls`."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                break
        # Our last flight stays in the BIO until the first write: in HTTP the client speaks first, and one segment with
        # Finished and request is cheaper than two.
        if self._enforcement is not None:
            self._stamp = _pinned(self._tls).pinset_stamp

    async def receive(self, max_bytes: int = _READ_SIZE) -> bytes:
        """See `_Stream.receive`."""
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def send(self, item: bytes) -> None:
        """See `_Stream.send`; refuses under a policy that no longer accepts the connection."""
        self._tls.write(item)
        await self._flush()

    async def aclose(self) -> None:
        """See `httpcore.AsyncNetworkStream.aclose`."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore.AsyncNetworkStream.get_extra_info`; in addition ``pinset`` for the verdict."""
        if info == "ssl_object":
            return self._tls
        if info == "pinset":
            return self._stamp and self._stamp.verdict
        return self._stream.get_extra_info(info)

    def accepts(self) -> bool:
        return self._enforcement is None or self._renewed(self._enforcement).decision is not Decision.REFUSE

    def _renewed(self, enforcement: Enforcement) -> Verdict:
        """The verdict under the policy in force now."""
        assert self._stamp is not None  # the stream is handed out after its handshake
        self._stamp = enforcement.pinner.renew(self._stamp)
        return self._stamp.verdict

    async def _flush(self) -> None:
        # Two tasks of one HTTP/2 connection may both have something to send; records must leave in the order in which
        # they were encrypted.
        if self._outgoing.pending:
            async with self._flushing:
                if data := self._outgoing.read():
                    await self._stream.send(data)

    async def _fill(self) -> None:
        if data := await self._stream.receive():
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


def _pinned(tls: ssl.SSLObject) -> PinnedSSLObject:
    if not isinstance(tls, PinnedSSLObject):
        raise ContextError(
            "the context was changed after the client was made and no longer yields pinset's TLS objects"
        )
    return tls
