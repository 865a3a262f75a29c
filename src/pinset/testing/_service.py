"""
What the servers of this package are made of: a listener, a thread for each connection, and an end to all of it.

Rules of this module:

1. Nothing outlives the ``with`` block: at its end connections are cut, and every thread is waited for.
2. It listens on the loopback interface, unless somebody says in as many words that others may come.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from pinset._errors import InputError

PATIENCE = 10.0
"""Seconds that a server of this package waits for the other side."""


class Service:
    """
    A TCP server that hands each connection to `_serve`, in a thread of its own.

    Args:
        address: Where to listen; port 0 takes a free one.
        allow_remote: Whether the address may be reachable from elsewhere.

    Raises:
        InputError: The address is none, or not one of the loopback interface and that was not allowed.
    """

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0), *, allow_remote: bool = False) -> None:
        self._address = (_checked(address[0], allow_remote=allow_remote), address[1])
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._host, self._port = address[0], 0

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._closing.clear()
        self._listener = socket.create_server(self._address, family=family, backlog=128)
        self._host, self._port = str(self._listener.getsockname()[0]), int(self._listener.getsockname()[1])
        self._start(self._accept, self._listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        # A blocked accept() does not notice close(); a connection wakes it.
        assert self._listener is not None  # it was entered
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname()[:2], timeout=PATIENCE).close()
        self._hang_up()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        self._listener.close()

    @property
    def port(self) -> int:
        """
        The port it listens on.

        Raises:
            RuntimeError: It does not listen yet.
        """
        if self._listener is None:
            raise RuntimeError(f"the {type(self).__name__} does not listen yet; enter it first: with … as server")
        return self._port

    def _serve(self, connection: socket.socket) -> None:
        """Handle a connection, and leave it open or closed."""
        raise NotImplementedError

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.settimeout(PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._handle, connection)

    def _handle(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._serve(connection)

    @contextlib.contextmanager
    def _held(self, connection: socket.socket) -> Iterator[None]:
        """While the block lasts, *connection* is cut when the service ends, and when `_hang_up` is called."""
        with self._lock:
            self._sockets.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _hang_up(self) -> None:
        with self._lock:
            for connection in self._sockets:
                cut(connection)


def cut(connection: socket.socket) -> None:
    """
    End *connection*, whatever another thread does with it.
    """
    # Not that of SSLSocket, which forgets its TLS first: the other thread would read ciphertext as data.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _checked(host: str, *, allow_remote: bool) -> str:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise InputError(f"{host!r} is no IP address to listen on; the loopback interface is 127.0.0.1") from None
    if not address.is_loopback and not allow_remote:
        raise InputError(
            f"{host} can be reached from other machines; say allow_remote (--allow-remote) if they may come"
        )
    return str(address)
