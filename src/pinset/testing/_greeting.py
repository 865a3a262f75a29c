"""
How a client asks a proxy for a connection: ``CONNECT`` (RFC 9110 section 9.3.6) and SOCKS5 (RFC 1928), on one port.

The first byte tells them apart: SOCKS5 begins with its version, an HTTP request with a letter.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pinset._errors import HostError
from pinset._hosts import canonical_host

_MOST_HEAD = 64 * 1024
_SOCKS5, _NO_AUTHENTICATION, _CONNECT = 5, 0, 1
_IPV4, _NAME, _IPV6 = 1, 3, 4


@dataclass(frozen=True, slots=True)
class Target:
    """
    What a client asked the proxy for.

    Attributes:
        host: Canonical.
        port: The port.
    """

    host: str
    port: int


def greet(client: socket.socket, serve_file: Callable[[str], bytes | None]) -> Target:
    """
    Read what *client* asks for, and say that it is connected.

    Args:
        client: A connection on which nothing was said yet.
        serve_file: Answers a plain ``GET`` to the proxy itself: the body for a path, or None.

    Raises:
        ConnectionError: It asked for nothing that this proxy does; it was told so.
        OSError: It hung up, or waited too long.
    """
    if client.recv(1, socket.MSG_PEEK) == bytes([_SOCKS5]):
        return _greet_socks(client)
    return _greet_http(client, serve_file)


def _greet_http(client: socket.socket, serve_file: Callable[[str], bytes | None]) -> Target:
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(4096)
        if not data or len(head) > _MOST_HEAD:
            raise ConnectionError("no request")
        head += data
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if words[0] == "GET" and len(words) > 1 and (body := serve_file(words[1])) is not None:
        client.sendall(_response("200 OK", body, b"application/x-x509-ca-cert"))
        raise ConnectionError("a file was asked for")
    if words[0] != "CONNECT" or len(words) < 2:  # noqa: PLR2004 - method and target
        # Without TLS there is nobody to impersonate: who asks for http:// is read by everybody on the road.
        client.sendall(_response("405 Method Not Allowed", b"This proxy takes CONNECT only.\n", b"text/plain"))
        raise ConnectionError("not CONNECT")
    host, _, port = words[1].rpartition(":")
    try:
        target = Target(canonical_host(host), int(port))
    except (HostError, ValueError):
        client.sendall(_response("400 Bad Request", b"CONNECT wants HOST:PORT.\n", b"text/plain"))
        raise ConnectionError("no host") from None
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return target


def _response(status: str, body: bytes, kind: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status.encode(),
        kind,
        len(body),
        body,
    )


def _greet_socks(client: socket.socket) -> Target:
    _, count = _read(client, 2)
    if _NO_AUTHENTICATION not in _read(client, count):
        client.sendall(bytes([_SOCKS5, 0xFF]))  # section 3: no acceptable method
        raise ConnectionError("SOCKS with authentication")
    client.sendall(bytes([_SOCKS5, _NO_AUTHENTICATION]))
    _, command, _, kind = _read(client, 4)
    try:
        name, port = _socks_name(client, kind), int.from_bytes(_read(client, 2))
        host = canonical_host(name)
    except (HostError, ValueError):
        client.sendall(_socks_reply(8))  # section 6: address type not supported
        raise ConnectionError("no host") from None
    if command != _CONNECT:
        client.sendall(_socks_reply(7))  # command not supported
        raise ConnectionError("not CONNECT")
    client.sendall(_socks_reply(0))
    return Target(host, port)


def _socks_name(client: socket.socket, kind: int) -> str:
    if kind == _NAME:
        return _read(client, _read(client, 1)[0]).decode("latin-1")
    sizes = {_IPV4: 4, _IPV6: 16}
    if kind not in sizes:
        raise ValueError(kind)
    return str(ipaddress.ip_address(_read(client, sizes[kind])))


def _socks_reply(code: int) -> bytes:
    return bytes([_SOCKS5, code, 0, _IPV4, 0, 0, 0, 0, 0, 0])


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = client.recv(size - len(data))
        if not received:
            raise ConnectionError("hung up in the greeting")
        data += received
    return data
