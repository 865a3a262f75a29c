"""
The network backend: connect, TLS, pin stamp, clean-up on cancel.

httpcore's public seam (`httpcore.AsyncNetworkBackend`). A connection is made by httpcore's own backend for the running
event loop; TLS is ours: a memory BIO on either side of a `PinnedSSLObject`, so that the outgoing BIO is emptied only
after the object had its say. The stream that `start_tls` returns can itself `start_tls`: TLS in TLS, for HTTPS proxies.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import anyio
import httpcore

from pinset._pinner import Stamp
from pinset._tls import Enforcement, PinnedSSLObject
from pinset._verdict import Decision, Verdict

if TYPE_CHECKING:
    from httpcore._backends.base import SOCKET_OPTION

_READ_SIZE = 64 * 1024


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

    Args:
        backend: The one that opens connections.
    """

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkBackend.connect_tcp`."""
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return PinnedStream(stream)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkBackend.connect_unix_socket`."""
        return PinnedStream(await self._backend.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        """See `httpcore.AsyncNetworkBackend.sleep`."""
        await self._backend.sleep(seconds)


class PinnedStream(httpcore.AsyncNetworkStream):
    """
    A connection before TLS: carries bytes as they are, and can start TLS.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore.AsyncNetworkStream.read`."""
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore.AsyncNetworkStream.write`."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """See `httpcore.AsyncNetworkStream.aclose`."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore.AsyncNetworkStream.get_extra_info`."""
        return self._stream.get_extra_info(info)

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


def _raise_as_connect_error(error: BaseException) -> NoReturn:
    match error:
        case TimeoutError():
            raise httpcore.ConnectTimeout(str(error)) from error
        case ssl.SSLError() | httpcore.ReadError() | httpcore.WriteError():
            raise httpcore.ConnectError(str(error)) from error
        case _:
            raise error


class TLSStream(PinnedStream):
    """
    A connection inside TLS.

    Args:
        stream: The connection that carries the records.
        ssl_context: An `OriginContext` for the leg to the origin, a plain context for a proxy's own leg.
        server_hostname: The name to verify.
    """

    def __init__(
        self, stream: PinnedStream, ssl_context: ssl.SSLContext | OriginContext, server_hostname: str | None
    ) -> None:
        super().__init__(stream)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._flushing = anyio.Lock(fast_acquire=True)
        self._stamp: Stamp | None = None
        self._tls: ssl.SSLObject
        if isinstance(ssl_context, OriginContext):
            self._enforcement: Enforcement | None = ssl_context.enforcement
            self._tls = ssl_context.context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
            assert isinstance(self._tls, PinnedSSLObject)  # `prepare_context` has proven it
            self._tls.enforce(ssl_context.enforcement)
        else:
            self._enforcement = None
            self._tls = ssl_context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    async def do_handshake(self) -> None:
        """Shake hands; see `PinnedStream.start_tls`."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(None)
                await self._fill(None)
            else:
                break
        if self._enforcement is not None:
            assert isinstance(self._tls, PinnedSSLObject)
            self._stamp = self._tls.pinset_stamp
        # Our last flight stays in the BIO until the first write: in HTTP the client speaks first, and one segment with
        # Finished and request is cheaper than two.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore.AsyncNetworkStream.read`. Empty at the end, with or without a close_notify, as in httpcore."""
        while True:
            try:
                return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                await self._flush(timeout)
                await self._fill(timeout)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """
        See `httpcore.AsyncNetworkStream.write`.

        Raises:
            RefusedError: The policy has changed, and the one in force now refuses this connection.
        """
        if not buffer:
            return
        if self._enforcement is not None and (verdict := self._renewed(self._enforcement)).decision is Decision.REFUSE:
            raise self._enforcement.error(verdict)
        try:
            self._tls.write(buffer)
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error
        await self._flush(timeout)

    def get_extra_info(self, info: str) -> object:
        """See `httpcore.AsyncNetworkStream.get_extra_info`; in addition ``pinset`` for the verdict."""
        if info == "ssl_object":
            return self._tls
        if info == "pinset":
            return self._stamp and self._stamp.verdict
        if info == "is_readable" and self._enforcement is not None:
            # httpcore retires an idle connection that has become readable. One that the policy in force refuses has
            # to go the same way.
            refused = self._renewed(self._enforcement).decision is Decision.REFUSE
            return refused or super().get_extra_info(info)
        return super().get_extra_info(info)

    def _renewed(self, enforcement: Enforcement) -> Verdict:
        """The verdict under the policy in force now."""
        assert self._stamp is not None  # the stream is handed out after its handshake
        self._stamp = enforcement.pinner.renew(self._stamp)
        return self._stamp.verdict

    async def _flush(self, timeout: float | None) -> None:
        # Two tasks of one HTTP/2 connection may both have something to send; records must leave in the order in which
        # they were encrypted.
        if self._outgoing.pending:
            async with self._flushing:
                if data := self._outgoing.read():
                    await self._stream.write(data, timeout)

    async def _fill(self, timeout: float | None) -> None:
        if data := await self._stream.read(_READ_SIZE, timeout):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
