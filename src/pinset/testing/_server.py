"""
A small HTTPS server in a thread of its own, which counts what reaches it.

One connection a thread, one request at a time, HTTP/1.1: enough to see who talked to whom. It is no web server.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_PATIENCE = 10.0


@dataclass(slots=True)
class Recorder:
    """
    What a server saw.

    Attributes:
        connections: TCP connections.
        handshakes: TLS handshakes that the server completed.
        client_certificates: Certificates that clients showed, DER.
        application_data: Bytes that came through TLS.
        requests: Request heads that arrived whole.
    """

    connections: int = 0
    handshakes: int = 0
    client_certificates: list[bytes] = field(default_factory=list)
    application_data: bytes = b""
    requests: list[bytes] = field(default_factory=list)


class TLSServer:
    """
    An HTTPS server on a free port of 127.0.0.1, while its ``with`` block lasts.

    Args:
        context: The server's TLS; `replace_context` changes it for later connections, as a key rotation does.
        respond: Makes the response, head and body, from the request head.
    """

    def __init__(self, context: ssl.SSLContext, *, respond: Callable[[bytes], bytes] | None = None) -> None:
        self._context = context
        self._respond = respond or _answer
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.seen = Recorder()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = int(self._listener.getsockname()[1])
        self._closing = False
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        # A blocked accept() does not notice close(); a connection wakes it.
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=_PATIENCE).close()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)
        self._listener.close()

    @property
    def port(self) -> int:
        """
        The port it listens on.
        """
        return self._port

    def url(self, host: str = "localhost", path: str = "/") -> str:
        """
        The ``https`` URL of *path* under the name *host*.
        """
        return f"https://{host}:{self.port}{path}"

    def replace_context(self, context: ssl.SSLContext) -> None:
        """
        Use *context* for connections from now on.
        """
        self._context = context

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing:
                connection.close()
                return
            connection.settimeout(_PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.seen.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, self._context.wrap_socket(connection, server_side=True) as tls:
            with self._lock:
                self._sockets.add(tls)
                self.seen.handshakes += 1
                if certificate := tls.getpeercert(binary_form=True):
                    self.seen.client_certificates.append(certificate)
            try:
                while head := self._receive_head(tls):
                    tls.sendall(self._respond(head))
            finally:
                with self._lock:
                    self._sockets.discard(tls)

    def _receive_head(self, tls: ssl.SSLSocket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            data = tls.recv(65536)
            if not data:
                return b""
            with self._lock:
                self.seen.application_data += data
            received += data
        head = received.partition(b"\r\n\r\n")[0]
        with self._lock:
            self.seen.requests.append(head)
        return head


def _answer(head: bytes) -> bytes:
    body = b"hello from " + head.partition(b"\r\n")[0]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%b" % (len(body), body)
