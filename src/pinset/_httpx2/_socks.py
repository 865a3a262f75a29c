# Made from pinset/_socks.py by tools/twins.py; change that one.
"""
SOCKS5 (RFC 1928) as a way to connect: a backend whose connections go through a proxy.

Rules of this module:

1. The pool does not know. What comes back is a raw stream like any other, and TLS with the origin starts on it.
2. The proxy resolves the name, for ``socks5://`` as for ``socks5h://``: what the caller looks up himself, his network
   sees.
3. python-socks speaks the protocol; the connection to the proxy is ours, and so is the time: it covers the greeting.
4. A proxy can say anything. Whatever it says becomes an error of httpcore2.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import anyio
import httpcore2

from pinset._httpx2 import _anyio_streams, _asyncio_connect
from pinset._httpx2._network import PinnedBackend
from pinset._socks_proxy import SocksProxy
from pinset._httpx2._streams import PinsetStream, raise_as_connect_error
from pinset._tasks import is_asyncio

if TYPE_CHECKING:
    from anyio.abc import SocketStream
    from httpcore2 import SOCKET_OPTION

T = TypeVar("T")

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)
# python-socks takes None for a minute, and uvloop no infinity. The time is measured outside.
_NO_TIMEOUT = 365 * 86_400.0


class SocksBackend(PinnedBackend):
    """
    A backend whose TCP connections go through a SOCKS5 proxy.

    Args:
        host: The proxy, a name or an address.
        port: Its port.
        auth: User name and password (RFC 1929), or None. They go over the network in the clear.

    Raises:
        ContextError: The extra ``socks`` is not installed, or the protocol cannot carry *auth*.
    """

    def __init__(self, host: str, port: int, auth: tuple[bytes, bytes] | None = None) -> None:
        self._proxy = SocksProxy.of(host, port, auth)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> PinsetStream:
        """
        See `httpcore2.AsyncNetworkBackend.connect_tcp`; *local_address* and *socket_options* are for the way to the proxy.

        Raises:
            httpcore2.ProxyError: The proxy refuses, with its words, or does not speak SOCKS5.
            httpcore2.ConnectError: The proxy cannot be reached, or breaks off.
            httpcore2.ConnectTimeout: *timeout* seconds have passed, greeting included.
        """
        if is_asyncio():
            async with _asyncio_connect.connecting(timeout) as opened:
                raw = await self._greet_on_asyncio(opened, host, port, local_address)
                return await _asyncio_connect.adopt(raw, socket_options)
        try:
            with anyio.fail_after(timeout):
                stream = await self._greet_on_anyio(host, port, local_address)
            return await _anyio_streams.adopt(
                stream, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ())]
            )
        except (OSError, UnicodeError, *_BROKEN) as error:
            raise_as_connect_error(error)

    async def _greet_on_asyncio(
        self, opened: list[socket.socket], host: str, port: int, local_address: str | None
    ) -> socket.socket:
        from python_socks.async_.asyncio import Proxy  # noqa: PLC0415 - an extra

        road = _Road(lambda host, port: _asyncio_connect.open_socket(opened, host, port, local_address))
        proxy = Proxy(*self._proxy.description(), forward=cast("Proxy", road))
        return await self._answer(proxy.connect(host, port, timeout=_NO_TIMEOUT))

    async def _greet_on_anyio(self, host: str, port: int, local_address: str | None) -> SocketStream:
        from python_socks.async_.anyio import Proxy  # noqa: PLC0415 - an extra

        road = _Road(lambda host, port: anyio.connect_tcp(host, port, local_host=local_address))
        proxy = Proxy(*self._proxy.description(), forward=cast("Proxy", road))
        return await self._answer(proxy.connect(host, port, timeout=_NO_TIMEOUT))

    async def _answer(self, greeting: Awaitable[T]) -> T:
        try:
            return await greeting
        except (OSError, *_BROKEN):
            raise
        except Exception as error:
            # A refusal, or what the words of a proxy that speaks something else come to in the parser.
            raise httpcore2.ProxyError(f"{self._proxy} says: {error}") from error


@dataclass(frozen=True, slots=True)
class _Road(Generic[T]):
    """
    What python-socks takes for another proxy on the way to this one, but is our own way to connect.
    """

    open: Callable[[str, int], Awaitable[T]]

    async def connect(self, dest_host: str, dest_port: int, **_: object) -> T:
        """Connect to the proxy; the time is measured outside."""
        return await self.open(dest_host, dest_port)
