# Made from pinset/_asyncio_connect.py by tools/twins.py; change that one.
"""
Connecting on asyncio and uvloop: names, addresses, sockets.

Rules of this module:

1. Whoever opens a socket closes it, on every way out: each is noted where it is made, and all are closed unless a stream
   is handed on, also when the task is cancelled.
2. What is already an address is not looked up: asking the resolver costs a hop to a thread.
3. Addresses are tried as RFC 8305 has it (Happy Eyeballs), by aiohappyeyeballs: uvloop does not have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from aiohappyeyeballs import AddrInfoType, start_connection

from pinset._asyncio_protocol import Connection
from pinset._httpx2._asyncio_streams import RawStream
from pinset._httpx2._streams import raise_as_connect_error

if TYPE_CHECKING:
    from httpcore2 import SOCKET_OPTION

_NEXT_ADDRESS_AFTER = 0.25  # seconds, as RFC 8305 section 8 recommends


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
    async with connecting(timeout) as opened:
        return await adopt(await open_socket(opened, host, port, local_address), socket_options)


async def connect_unix_socket(
    path: str, timeout: float | None, socket_options: Iterable[SOCKET_OPTION] | None
) -> RawStream:
    """
    See `httpcore2.AsyncNetworkBackend.connect_unix_socket`.
    """
    async with connecting(timeout) as opened:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.append(raw)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, path)
        return await adopt(raw, socket_options)


@contextlib.asynccontextmanager
async def connecting(timeout: float | None) -> AsyncIterator[list[socket.socket]]:
    """
    A list for the sockets that are opened in the block, which are closed if it fails; its errors become httpcore2's.
    """
    opened: list[socket.socket] = []
    try:
        async with asyncio.timeout(timeout):
            yield opened
    except BaseException as error:  # noqa: BLE001 - cancellation leaks sockets too
        _close(opened)
        if isinstance(error, RuntimeError):  # uvloop, for a descriptor that it believes in use
            error = OSError(str(error))
        raise_as_connect_error(error)


async def open_socket(
    opened: list[socket.socket], host: str, port: int, local_address: str | None = None
) -> socket.socket:
    """
    A socket connected to *host*; it is the only one left in *opened*.

    Raises:
        OSError: No address can be reached, or none fits *local_address*.
        UnicodeError: The host has no IDNA form.
    """
    addresses = await _addresses(host, port)
    local = None if local_address is None else await _addresses(local_address, 0)
    if local is not None:
        addresses = _of_the_same_family(addresses, local, local_address)

    def new_socket(address: AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        opened.append(made)
        return made

    raw = await start_connection(
        addresses,
        local_addr_infos=local,
        happy_eyeballs_delay=_NEXT_ADDRESS_AFTER,
        socket_factory=new_socket,
    )
    opened.remove(raw)
    _close(opened)
    opened[:] = [raw]
    return raw


async def adopt(raw: socket.socket, socket_options: Iterable[SOCKET_OPTION] | None) -> RawStream:
    """
    A stream over a connected socket, with the options set.

    Raises:
        OSError: The system does not know an option.
    """
    loop = asyncio.get_running_loop()
    create = loop.create_unix_connection if raw.family == socket.AF_UNIX else loop.create_connection
    _, connection = await create(lambda: Connection(raw), sock=raw)
    try:
        # Both loops have set TCP_NODELAY by now; the user may want it otherwise.
        for option in socket_options or ():
            raw.setsockopt(*option)  # pyright: ignore[reportArgumentType, reportCallIssue]  # four forms, which the type does not tell apart
    except BaseException:
        connection.abort()
        raise
    return RawStream(connection)


def _close(opened: Iterable[socket.socket]) -> None:
    for raw in opened:
        try:
            raw.getsockname()
        except OSError:
            # uvloop up to 0.22 closes the descriptor when it is cancelled while it takes over the socket. By now the
            # number may be somebody else's.
            raw.detach()
        else:
            raw.close()


async def _addresses(host: str, port: int) -> Sequence[AddrInfoType]:
    for family, address in ((socket.AF_INET, (host, port)), (socket.AF_INET6, (host, port, 0, 0))):
        with contextlib.suppress(OSError, UnicodeError):
            socket.inet_pton(family, host)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _of_the_same_family(
    addresses: Sequence[AddrInfoType], local: Sequence[AddrInfoType], local_address: str | None
) -> list[AddrInfoType]:
    families = {family for family, *_ in local}
    fitting = [address for address in addresses if address[0] in families]
    if not fitting:
        raise OSError(f"the host has no address of the same family as the local address {local_address}")
    return fitting
