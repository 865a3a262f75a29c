"""
SOCKS5 (RFC 1928) as a way to connect, for threads; the rules are those of `pinset._socks`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import httpcore

from pinset._socks_proxy import SocksProxy
from pinset._streams import raise_as_connect_error
from pinset._sync._network import PinnedBackend, adopt, open_socket
from pinset._sync._streams import PinsetStream, RawStream

if TYPE_CHECKING:
    from httpcore._backends.base import SOCKET_OPTION


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

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> PinsetStream:
        """
        See `httpcore.NetworkBackend.connect_tcp`; *local_address* and *socket_options* are for the way to the proxy.

        Raises:
            httpcore.ProxyError: The proxy refuses, with its words, or does not speak SOCKS5.
            httpcore.ConnectError: The proxy cannot be reached, or breaks off.
            httpcore.ConnectTimeout: *timeout* seconds have passed, greeting included.
        """
        from python_socks.sync import Proxy  # noqa: PLC0415 - an extra

        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            raw = open_socket(self._proxy.host, self._proxy.port, timeout, local_address)
            stream = adopt(raw, socket_options)
        except (OSError, UnicodeError) as error:
            raise_as_connect_error(error)
        road = _Road(stream, deadline)
        try:
            Proxy(*self._proxy.description(), forward=cast("Proxy", road)).connect(host, port)
        except (OSError, UnicodeError) as error:
            stream.close()
            raise_as_connect_error(error)
        except Exception as error:
            # A refusal, or what the words of a proxy that speaks something else come to in the parser.
            stream.close()
            raise httpcore.ProxyError(f"{self._proxy} says: {error}") from error
        except BaseException:
            stream.close()
            raise
        return stream


class _Road:
    """
    What python-socks takes for another proxy on the way to this one, and for the socket that it gave.
    """

    def __init__(self, stream: RawStream, deadline: float | None) -> None:
        self._stream = stream
        self._deadline = deadline

    def connect(self, **_: object) -> _Road:
        """The connection to the proxy, which is there."""
        return self

    def recv(self, max_bytes: int) -> bytes:
        """See `socket.socket.recv`."""
        return self._stream.receive(max_bytes, self._deadline)

    def sendall(self, data: bytes) -> None:
        """See `socket.socket.sendall`."""
        self._stream.send(data, self._deadline)

    def close(self) -> None:
        """See `socket.socket.close`."""
        self._stream.close()
