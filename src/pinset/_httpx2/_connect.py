# Made from pinset/_connect.py by tools/twins.py; change that one.
"""
How a connection to an origin comes about: directly, through a proxy's tunnel, over SOCKS, or handed to a forward proxy.

Rules of this module:

1. Every road ends in the same `start_tls` with the context of the origin, so every road is pinned alike. A proxy's own
   TLS is verified by the proxy's context, with pins of its own or without, and never by the pins of an origin.
2. A stream has one owner at any time, who closes it on every error and on cancellation.
3. Each step is bounded by the timeouts of the request that asked for the connection, and told to its ``trace`` extension
   under httpcore2's names.
4. What failed to connect is tried again ``retries`` times. A refusal by pins is no failure to connect.
"""

from __future__ import annotations

import base64
import itertools
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import httpcore2

from pinset._httpx2._http2 import FrameStream
from pinset._httpx2._network import PinnedBackend
from pinset._httpx2._streams import PinsetStream
from pinset._tasks import MOST_STREAMS, lighten, shielded, sleep
from pinset._tls_layer import OriginContext

if TYPE_CHECKING:
    from httpcore2 import SOCKET_OPTION

_TLS_SCHEMES = frozenset({b"https", b"wss"})
_RETRY_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, the last one for all that follow; as in httpcore2

Extensions: TypeAlias = Mapping[str, Any]
Key: TypeAlias = tuple[bytes, bytes, int]
"""Scheme, host and port of an origin."""


@dataclass(frozen=True, slots=True)
class HTTPProxy:
    """
    A proxy that is spoken to in HTTP.

    Attributes:
        origin: Where it is; ``https`` for TLS to the proxy itself.
        auth: User and password.
        headers: For the proxy, with CONNECT and with forwarded requests.
        context: Verifies the proxy's own TLS, if there is any; an `OriginContext` if it is pinned.
    """

    origin: httpcore2.Origin
    auth: tuple[bytes, bytes] | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    context: ssl.SSLContext | OriginContext | None = None

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """
        `headers`, and ``Proxy-Authorization`` before them if there is a user.
        """
        if self.auth is None:
            return list(self.headers)
        credentials = base64.b64encode(b"%b:%b" % self.auth)
        return [(b"Proxy-Authorization", b"Basic " + credentials), *self.headers]


@dataclass(slots=True)
class Protocol:
    """
    What speaks HTTP on a connection.

    Attributes:
        http: httpcore2's connection, HTTP/1.1 or HTTP/2.
        stream: What carries it.
        frames: The same for HTTP/2, with what the server said about the connection; None for HTTP/1.1.
        forward: Rewrites a request for a forward proxy, or None.
    """

    http: httpcore2.AsyncConnectionInterface
    stream: PinsetStream
    frames: FrameStream | None = None
    forward: Callable[[httpcore2.Request], httpcore2.Request] | None = None

    async def aclose(self) -> None:
        """
        Close the connection, and end what is in flight on it.
        """
        with shielded():
            try:
                await self.http.aclose()
            finally:
                await self.stream.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """
    Makes connections by the one road of its transport.

    Attributes:
        backend: The network, or a SOCKS proxy in front of it.
        context_for: The TLS of an origin, by host and port.
        proxy: The HTTP proxy to go through, or None.
        http1: Whether HTTP/1.1 may be spoken.
        http2: Whether HTTP/2 may be spoken.
        uds: The path of a Unix socket in place of TCP.
        local_address: The address to connect from.
        retries: How often to try again what failed to connect.
        socket_options: Set on each socket.
    """

    backend: PinnedBackend
    context_for: Callable[[str, int], OriginContext]
    proxy: HTTPProxy | None = None
    http1: bool = True
    http2: bool = False
    uds: str | None = None
    local_address: str | None = None
    retries: int = 0
    socket_options: Iterable[SOCKET_OPTION] = field(default=())

    def shares(self, key: Key) -> bool:
        """
        Whether a connection to an origin may turn out to be HTTP/2.
        """
        return MOST_STREAMS > 1 and self.http2 and (key[0] in _TLS_SCHEMES or not self.http1)

    async def connect(
        self,
        origin: httpcore2.Origin,
        extensions: Extensions,
        *,
        on_step: Callable[[], None],
        on_change: Callable[[], None],
    ) -> Protocol:
        """
        Connect to *origin*.

        Args:
            origin: Where to.
            extensions: Those of the request that asks, for its timeouts and trace.
            on_step: Called before each step that has a timeout of its own.
            on_change: Called when an HTTP/2 connection has learned something; see `FrameStream`.

        Raises:
            RefusedError: The pins refuse the chain.
            httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.ProxyError: As in httpcore2.
        """
        for attempt in itertools.count():
            try:
                return await self._connect_once(origin, extensions, on_step, on_change)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if attempt >= self.retries:
                    raise
            await sleep(_RETRY_DELAYS[min(attempt, len(_RETRY_DELAYS) - 1)])
        raise AssertionError  # count() has no end

    async def _connect_once(
        self,
        origin: httpcore2.Origin,
        extensions: Extensions,
        on_step: Callable[[], None],
        on_change: Callable[[], None],
    ) -> Protocol:
        proxy = self.proxy
        on_step()
        if proxy is not None:
            if origin.scheme == b"http":
                stream = await self._reach_proxy(proxy, extensions, on_step)
                protocol = _http1(proxy.origin, stream)
                protocol.forward = _Forward(proxy).rewrite
                return protocol
            stream = await self._tunnel(proxy, origin, extensions, on_step)
        else:
            stream = await self._reach(origin, extensions)
        if origin.scheme not in _TLS_SCHEMES:
            return _http1(origin, stream) if self.http1 else _http2(origin, stream, on_change)
        on_step()
        tls = await _start_tls(stream, self.context_for(origin.host.decode("ascii"), origin.port), origin, extensions)
        ssl_object: ssl.SSLObject = tls.get_extra_info("ssl_object")
        chosen = ssl_object.selected_alpn_protocol()
        if self.http2 and (chosen == "h2" or not self.http1):
            return _http2(origin, tls, on_change)
        return _http1(origin, tls)

    async def _reach(self, origin: httpcore2.Origin, extensions: Extensions) -> PinsetStream:
        if self.uds is not None:
            return await _step(
                extensions,
                "connection.connect_unix_socket",
                self.backend.connect_unix_socket,
                path=self.uds,
                timeout=_timeout(extensions),
                socket_options=self.socket_options,
            )
        return await _step(
            extensions,
            "connection.connect_tcp",
            self.backend.connect_tcp,
            host=origin.host.decode("ascii"),
            port=origin.port,
            local_address=self.local_address,
            timeout=_timeout(extensions),
            socket_options=self.socket_options,
        )

    async def _reach_proxy(self, proxy: HTTPProxy, extensions: Extensions, on_step: Callable[[], None]) -> PinsetStream:
        stream = await self._reach(proxy.origin, extensions)
        if proxy.origin.scheme == b"https":
            on_step()
            assert proxy.context is not None  # see `HTTPProxy`
            return await _start_tls(stream, proxy.context, proxy.origin, extensions)
        return stream

    async def _tunnel(
        self, proxy: HTTPProxy, origin: httpcore2.Origin, extensions: Extensions, on_step: Callable[[], None]
    ) -> PinsetStream:
        """A stream to *origin* through CONNECT (RFC 9110 section 9.3.6)."""
        stream = await self._reach_proxy(proxy, extensions, on_step)
        on_step()
        host = b"[%b]" % origin.host if b":" in origin.host else origin.host
        target = b"%b:%d" % (host, origin.port)
        url = httpcore2.URL(scheme=proxy.origin.scheme, host=proxy.origin.host, port=proxy.origin.port, target=target)
        headers = _merged([(b"Host", target), (b"Accept", b"*/*")], proxy.all_headers())
        connection = httpcore2.AsyncHTTP11Connection(proxy.origin, stream)
        try:
            response = await connection.handle_async_request(
                httpcore2.Request(b"CONNECT", url, headers=headers, extensions=dict(extensions))
            )
        except BaseException:  # httpcore2 closes it, unless the trace of the request raises once more
            await _close(stream)
            raise
        if not 200 <= response.status <= 299:  # noqa: PLR2004 - RFC 9110 section 15.3
            reason = response.extensions.get("reason_phrase", b"").decode("ascii", "replace")
            await _close(stream)
            raise httpcore2.ProxyError(f"{response.status} {reason}")
        return stream


async def _start_tls(
    stream: PinsetStream,
    context: ssl.SSLContext | OriginContext,
    origin: httpcore2.Origin,
    extensions: Extensions,
) -> PinsetStream:
    # The name is always that of the origin: the transport refuses a sni_hostname that differs from it.
    try:
        return await _step(
            extensions,
            "connection.start_tls",
            stream.start_tls,
            ssl_context=context,
            server_hostname=origin.host.decode("ascii"),
            timeout=_timeout(extensions),
        )
    except BaseException:  # the trace of the request may have raised before the handshake
        await _close(stream)
        raise


def _http1(origin: httpcore2.Origin, stream: PinsetStream) -> Protocol:
    connection = httpcore2.AsyncHTTP11Connection(origin, stream)
    lighten(connection, shared=False)
    return Protocol(connection, stream)


def _http2(origin: httpcore2.Origin, stream: PinsetStream, on_change: Callable[[], None]) -> Protocol:
    frames = FrameStream(stream, on_change)
    connection = httpcore2.AsyncHTTP2Connection(origin, frames)
    lighten(connection, shared=True)
    return Protocol(connection, stream, frames)


class _Forward:
    """
    Requests for ``http`` origins, as a forward proxy wants them (RFC 9112 section 3.2.2).
    """

    def __init__(self, proxy: HTTPProxy) -> None:
        self._origin = proxy.origin
        self._headers = proxy.all_headers()

    def rewrite(self, request: httpcore2.Request) -> httpcore2.Request:
        """*request* with its whole URL as the target, and the proxy's headers."""
        url = httpcore2.URL(
            scheme=self._origin.scheme, host=self._origin.host, port=self._origin.port, target=bytes(request.url)
        )
        return httpcore2.Request(
            request.method,
            url,
            headers=_merged(self._headers, request.headers),
            content=request.stream,
            extensions=request.extensions,
        )


def _merged(headers: Iterable[tuple[bytes, bytes]], over: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    over = list(over)
    names = {name.lower() for name, _ in over}
    return [(name, value) for name, value in headers if name.lower() not in names] + over


def _timeout(extensions: Extensions) -> float | None:
    timeouts: Mapping[str, float | None] = extensions.get("timeout", {})
    return timeouts.get("connect")


async def _step(
    extensions: Extensions,
    name: str,
    action: Callable[..., Awaitable[PinsetStream]],
    **arguments: Any,
) -> PinsetStream:
    """Do one step, and tell the request's ``trace`` extension about it, as httpcore2 does."""
    trace: Callable[[str, dict[str, Any]], Awaitable[None]] | None = extensions.get("trace")
    if trace is None:
        return await action(**arguments)
    await trace(f"{name}.started", arguments)
    try:
        stream = await action(**arguments)
    except BaseException as error:
        await trace(f"{name}.failed", {"exception": error})
        raise
    try:
        await trace(f"{name}.complete", {"return_value": stream})
    except BaseException:
        await _close(stream)
        raise
    return stream


async def _close(stream: PinsetStream) -> None:
    with shielded():
        await stream.aclose()
