"""
Peers for the tests of the network: servers in threads that do exactly what a test tells them, and the event loops.
"""

from __future__ import annotations

import functools
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import uvloop

from pinset import PinMismatchError, Pinner
from pinset._contexts import prepare_context
from pinset._enforcement import Enforcement
from pinset._tls_layer import OriginContext

LOOPS = {
    "asyncio": functools.partial(anyio.run, backend="asyncio"),
    "uvloop": functools.partial(anyio.run, backend="asyncio", backend_options={"loop_factory": uvloop.new_event_loop}),
    "trio": functools.partial(anyio.run, backend="trio"),
}
PATIENCE = 10.0


class Peer:
    """
    A server whose connections are handled by *talk*, each in a thread.

    Attributes:
        address: What the listener is bound to.
        errors: What went wrong in *talk*, but for broken connections.
    """

    def __init__(self, listener: socket.socket, talk: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._talk = talk
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._closing = False
        self.address = listener.getsockname()
        self.errors: list[BaseException] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self.address[1])

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            connection.settimeout(PATIENCE)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._talk(connection)
        except OSError:
            pass
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.errors.append(error)

    def close(self) -> None:
        self._closing = True
        with socket.socket(self._listener.family) as last, suppress(OSError):
            last.settimeout(PATIENCE)
            last.connect(self.address)
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        assert not self.errors, self.errors


@contextmanager
def peer(talk: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[Peer]:
    """A `Peer` on a free port of *host*, or on a Unix socket if *host* is a path."""
    if "/" in host:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(host)
        listener.listen()
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family, backlog=128)
    running = Peer(listener, talk)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def tls_peer(context: ssl.SSLContext, talk: Callable[[ssl.SSLSocket], None], host: str = "127.0.0.1") -> Iterator[Peer]:
    """A `Peer` that shakes hands first."""

    def shake_hands(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            talk(tls)

    with peer(shake_hands, host) as running:
        yield running


def echo(connection: socket.socket) -> None:
    """Send back what comes."""
    while data := connection.recv(65536):
        connection.sendall(data)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Receive *size* bytes, or what comes before the end."""
    received = bytearray()
    while len(received) < size and (data := connection.recv(min(65536, size - len(received)))):
        received += data
    return bytes(received)


def reset(connection: socket.socket) -> None:
    """Break *connection* off with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.socket(fileno=connection.detach()).close()


class Hold:
    """
    Lets a peer wait until the test says go, and the other way round.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def let_go(self) -> None:
        self._event.set()

    def wait(self) -> None:
        assert self._event.wait(PATIENCE), "nobody let go"

    async def wait_async(self) -> None:
        for _ in range(int(PATIENCE * 200)):
            if self._event.is_set():
                return
            await anyio.sleep(0.005)
        raise AssertionError("nobody let go")


def origin_context(pinner: Pinner, context: ssl.SSLContext) -> OriginContext:
    """What httpcore is given for an origin under *pinner*."""
    prepare_context(context, pinner)
    return OriginContext(
        context, Enforcement(pinner, lambda found: PinMismatchError(found.explain(), host=found.host, verdict=found))
    )


def open_sockets() -> set[tuple[int, str]]:
    """The descriptors of this process that are sockets, with their inode numbers."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:"):
                found.add((int(entry.name), target))
    return found


def opened_since(before: set[tuple[int, str]], port: int) -> list[tuple[object, object]]:
    """
    The addresses, here and there, of sockets opened since *before*, but for those of the `Peer` on *port*.

    Its threads live in this process, too, and come and go.
    """
    found = []
    for descriptor, _ in open_sockets() - before:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            here, there = one.getsockname(), None
            with suppress(OSError):
                there = one.getpeername()
            if here[1] != port:
                found.append((here, there))
    return found


def is_open(descriptor: int) -> bool:
    """Whether *descriptor* is open in this process."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
