"""
A small HTTPS server in a thread of its own, which counts what reaches it.

One connection a thread, one request at a time, HTTP/1.1 or HTTP/2: enough to see who talked to whom. It is no web server.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from pinset.testing._http2 import Responder, serve_http2
from pinset.testing._service import Service

_CHUNK = 65536


@dataclass(slots=True)
class Recorder:
    """
    What a server saw.

    Attributes:
        connections: TCP connections.
        handshakes: TLS handshakes that the server completed.
        client_certificates: Certificates that clients showed, DER.
        application_data: Bytes that came through TLS.
        requests: Request heads that arrived whole; those of HTTP/2 as HTTP/1.1 would write them.
        bodies: What came after each, as it was transferred.
    """

    connections: int = 0
    handshakes: int = 0
    client_certificates: list[bytes] = field(default_factory=list)
    application_data: bytes = b""
    requests: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


class TLSServer(Service):
    """
    An HTTPS server on a free port of 127.0.0.1, while its ``with`` block lasts.

    Args:
        context: The server's TLS; `replace_context` changes it for later connections, as a key rotation does.
        respond: Makes the response, head and body as HTTP/1.1 writes them, from the request head.
    """

    def __init__(self, context: ssl.SSLContext, *, respond: Responder | None = None) -> None:
        super().__init__()
        self._context = context
        self._respond = respond or _answer
        self.seen = Recorder()

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

    def hang_up(self) -> None:
        """
        Cut the connections that are open now, as a restart of the server does.
        """
        self._hang_up()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.seen.connections += 1
        with self._context.wrap_socket(connection, server_side=True) as tls, self._held(tls):
            with self._lock:
                self.seen.handshakes += 1
                if certificate := tls.getpeercert(binary_form=True):
                    self.seen.client_certificates.append(certificate)
            if tls.selected_alpn_protocol() == "h2":
                serve_http2(lambda: self._receive(tls), tls.sendall, self._answer_http2)
            else:
                while head := self._receive_head(tls):
                    tls.sendall(self._respond(head))

    def _receive_head(self, tls: ssl.SSLSocket) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            data = self._receive(tls)
            if not data:
                return b""
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        self._note(head, _receive_body(head, body, lambda: self._receive(tls)))
        return head

    def _receive(self, tls: ssl.SSLSocket) -> bytes:
        data = tls.recv(_CHUNK)
        with self._lock:
            self.seen.application_data += data
        return data

    def _answer_http2(self, head: bytes, body: bytes) -> bytes:
        self._note(head, body)
        return self._respond(head)

    def _note(self, head: bytes, body: bytes) -> None:
        with self._lock:
            self.seen.requests.append(head)
            self.seen.bodies.append(body)


def _receive_body(head: bytes, body: bytes, receive: Callable[[], bytes]) -> bytes:
    """What follows *head*, as RFC 9112 section 6.3 finds its end; *body* has come already."""
    if re.search(rb"(?i)\r\ntransfer-encoding:.*chunked", head):

        def is_whole() -> bool:
            return body.endswith(b"0\r\n\r\n")
    else:
        length = re.search(rb"(?i)\r\ncontent-length:[ \t]*([0-9]+)", head)
        expected = int(length[1]) if length else 0

        def is_whole() -> bool:
            return len(body) >= expected

    while not is_whole():
        data = receive()
        if not data:
            break
        body += data
    return body


def _answer(head: bytes) -> bytes:
    body = b"hello from " + head.partition(b"\r\n")[0]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n%b" % (len(body), body)
