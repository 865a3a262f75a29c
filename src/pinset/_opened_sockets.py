"""
The sockets that an httpx client opens, closed for certain.

httpcore 1.0 forgets the socket of a TLS handshake that is cancelled, as a time limit does. pinset's own pool does not; this is
for reports and updates, which go over stock clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

if TYPE_CHECKING:
    import httpcore

Trace: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""What httpcore calls from a request's ``trace`` extension."""


@asynccontextmanager
async def opened_sockets_closed() -> AsyncIterator[Trace]:
    """
    Close at the end whatever the requests have opened that were given the ``trace`` extension that this yields.
    """
    opened: list[httpcore.AsyncNetworkStream] = []

    async def note(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])

    try:
        yield note
    finally:
        with anyio.CancelScope(shield=True):
            for stream in opened:
                await stream.aclose()
