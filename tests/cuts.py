"""
A relay that cuts what a server says after so many bytes, or hands it on in crumbs; and what a client makes of it.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpcore
from conftest import HOST
from peers import PATIENCE, Peer, peer, reset, tls_peer

from pinset import PinMismatchError
from pinset._network import PinnedBackend

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + b"x" * 300


class Scissors:
    """
    A relay to *target*.

    Attributes:
        limit: How much of what the server says is handed on.
        cut: How the connection ends there: "FIN" or "RST".
        crumb: The size of the pieces that are handed on.
        most: How much the server has said on one connection, at most.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.limit = 1 << 60
        self.cut = "FIN"
        self.crumb = 65536
        self.most = 0

    def __call__(self, client: socket.socket) -> None:
        said, limit = 0, self.limit
        with socket.create_connection(("127.0.0.1", self._target), timeout=PATIENCE) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while said < limit:
                for source in select.select([client, server], [], [], PATIENCE)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        server.sendall(data)
                    else:
                        self.most = max(self.most, said + len(data))  # before the client can be done with it
                        said += self._hand_on(client, data[: limit - said])
            self._end(client)

    def _hand_on(self, client: socket.socket, data: bytes) -> int:
        for start in range(0, len(data), self.crumb):
            client.sendall(data[start : start + self.crumb])
        return len(data)

    def _end(self, client: socket.socket) -> None:
        if self.cut == "RST":
            reset(client)
        else:
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass


def answer(tls) -> None:
    """One request, one answer."""
    tls.recv(65536)
    tls.sendall(ANSWER)
    tls.recv(1)


@contextmanager
def cutting(context) -> Iterator[tuple[Scissors, Peer]]:
    """A TLS server behind `Scissors`; these, and where to connect."""
    with tls_peer(context, answer) as server:
        scissors = Scissors(server.port)
        with peer(scissors) as relay:
            yield scissors, relay


async def outcome(port: int, origin) -> str:
    """How far a request gets: the name of the error, "cut" for an early end, or "complete"."""
    try:
        raw = await PinnedBackend().connect_tcp("127.0.0.1", port, timeout=PATIENCE)
        stream = await raw.start_tls(origin, HOST, timeout=PATIENCE)
    except (httpcore.ConnectError, PinMismatchError) as error:
        return type(error).__name__
    try:
        await stream.write(b"GET / HTTP/1.1\r\n\r\n", timeout=PATIENCE)
        received = b""
        while len(received) < len(ANSWER) and (data := await stream.read(65536, timeout=PATIENCE)):
            received += data
    except (httpcore.ReadError, httpcore.WriteError) as error:
        return type(error).__name__
    finally:
        await stream.aclose()
    assert ANSWER.startswith(received)
    return "complete" if received == ANSWER else "cut"


async def sweep(context, origin, cut: str, stride: int) -> list[str]:
    """The outcomes of cutting after 0, *stride*, 2 *stride* … bytes, and of not cutting at all."""
    with cutting(context) as (scissors, relay):
        scissors.cut = cut
        await outcome(relay.port, origin)
        outcomes = []
        # A signature is a few bytes longer or shorter each time.
        for limit in [*range(0, scissors.most + 20, stride), 1 << 60]:
            scissors.limit = limit
            outcomes.append(await outcome(relay.port, origin))
        return outcomes
