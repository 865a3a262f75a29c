# Made from pinset/_network.py by tools/twins.py; change that one.
"""
The network backend: httpcore2's public seam (`httpcore2.AsyncNetworkBackend`), for the event loop that runs.

On asyncio and uvloop the streams stand directly on the loop's protocols, elsewhere on anyio's streams. The stream that
`start_tls` returns can itself `start_tls`: TLS in TLS, for HTTPS proxies.

Errors are httpcore2's, by what was being done: connecting and shaking hands, reading, or writing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import anyio
import httpcore2

from pinset._httpx2 import _anyio_streams, _asyncio_connect
from pinset._httpx2._streams import PinsetStream
from pinset._tasks import is_asyncio

if TYPE_CHECKING:
    from httpcore2 import SOCKET_OPTION


class PinnedBackend(httpcore2.AsyncNetworkBackend):
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
    ) -> PinsetStream:
        """See `httpcore2.AsyncNetworkBackend.connect_tcp`."""
        connect = _asyncio_connect.connect_tcp if is_asyncio() else _anyio_streams.connect_tcp
        return await connect(host, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> PinsetStream:
        """See `httpcore2.AsyncNetworkBackend.connect_unix_socket`."""
        connect = _asyncio_connect.connect_unix_socket if is_asyncio() else _anyio_streams.connect_unix_socket
        return await connect(path, timeout, socket_options)

    async def sleep(self, seconds: float) -> None:
        """See `httpcore2.AsyncNetworkBackend.sleep`."""
        await anyio.sleep(seconds)
