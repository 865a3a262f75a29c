"""
An intercepting proxy: what an attacker with a trusted CA, or a company's inspection box, does.

It answers ``CONNECT``, shakes hands with the client under a certificate it makes on the spot for whatever host is
asked for, and passes the decrypted bytes on. A client that trusts its CA and has no pins notices nothing.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pinset.testing._authority import Authority

_PATIENCE = 10.0
_MOST_HEAD = 64 * 1024
_CHUNK = 64 * 1024


class Interceptor:
    """
    A CONNECT proxy on a free port of 127.0.0.1 that impersonates every host, while its ``with`` block lasts.

    Args:
        authority: Signs the impostors. Make the client under test trust it.
        upstream: What the interceptor itself trusts when it talks to the real server.

    Attributes:
        intercepted: Plain text that clients sent through, by host.
        refused: How often a client broke off the handshake, by host.
    """

    def __init__(self, authority: Authority, *, upstream: ssl.SSLContext) -> None:
        self._authority = authority
        self._upstream = upstream
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.intercepted: dict[str, bytes] = {}
        self.refused: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=_PATIENCE).close()
        for thread in self._threads:
            thread.join(_PATIENCE)
        self._listener.close()

    @property
    def url(self) -> str:
        """
        What a client takes as ``proxy``.
        """
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closing.is_set():
                client.close()
                return
            client.settimeout(_PATIENCE)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            host, port = _connect_target(client)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            deceived = self._deceive(client, host)
            if deceived is None:
                return
            inside, first = deceived
            with inside, self._connect(host, port) as outside:
                outside.sendall(first)
                self._relay(host, inside, outside)

    def _deceive(self, client: socket.socket, host: str) -> tuple[ssl.SSLSocket, bytes] | None:
        """
        Shake hands as *host* and read the first bytes; None where the client breaks off.

        In TLS 1.3 that shows only in the read: our side of the handshake is done before the client's.
        """
        inside = None
        try:
            inside = self._impostor(host).wrap_socket(client, server_side=True)
            if first := inside.recv(_CHUNK):
                self._note(host, first)
                return inside, first
        except OSError:
            pass
        if inside is not None:
            inside.close()
        with self._lock:
            self.refused[host] = self.refused.get(host, 0) + 1
        return None

    def _connect(self, host: str, port: int) -> ssl.SSLSocket:
        plain = socket.create_connection((host, port), timeout=_PATIENCE)
        return self._upstream.wrap_socket(plain, server_hostname=host)

    def _impostor(self, host: str) -> ssl.SSLContext:
        with self._lock:
            if host not in self._contexts:
                self._contexts[host] = self._authority.issue(host).server_context()
            return self._contexts[host]

    def _relay(self, host: str, inside: ssl.SSLSocket, outside: ssl.SSLSocket) -> None:
        while not self._closing.is_set():
            waiting = [tls for tls in (inside, outside) if tls.pending()]
            for source in waiting or select.select([inside, outside], [], [], 0.2)[0]:
                data = source.recv(_CHUNK)
                if not data:
                    return
                if source is inside:
                    self._note(host, data)
                (outside if source is inside else inside).sendall(data)

    def _note(self, host: str, data: bytes) -> None:
        with self._lock:
            self.intercepted[host] = self.intercepted.get(host, b"") + data


def _connect_target(client: socket.socket) -> tuple[str, int]:
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(4096)
        if not data or len(head) > _MOST_HEAD:
            raise ConnectionError("no CONNECT")
        head += data
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if method != "CONNECT":
        client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        raise ConnectionError("not CONNECT")
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)
