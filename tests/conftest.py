"""
What the tests share: a genuine authority, a rogue one that the client trusts too, and a stock server for each.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import settings

from pinset.reports._worker import worker
from pinset.testing import Authority, Identity

# Timing says nothing on a shared machine. The second one is for `mutation.py`, which runs the tests a thousand times.
settings.register_profile("default", deadline=None)
settings.register_profile("mutation", deadline=None, max_examples=15, database=None)
settings.load_profile("default")

HOST = "localhost"
BACKUP = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long values name no test: some are made anew in each process, and older versions of pytest take them whole."""
    return argname if isinstance(val, (str, bytes)) and len(val) > 100 else None


@pytest.fixture(scope="session")
def genuine() -> Authority:
    """The authority that issued the server's certificate."""
    return Authority("Genuine")


@pytest.fixture(scope="session")
def rogue() -> Authority:
    """An authority in the trust store of the client that issues certificates to attackers."""
    return Authority("Rogue")


@pytest.fixture(scope="session")
def leaf(genuine: Authority) -> Identity:
    """The server's own identity."""
    return genuine.issue(HOST, "127.0.0.1", "::1")


@pytest.fixture(scope="session")
def impostor(rogue: Authority) -> Identity:
    """The attacker's identity for the same host."""
    return rogue.issue(HOST, "127.0.0.1", "::1", "other.test")


@pytest.fixture(scope="session")
def pins(leaf: Identity) -> dict[str, list[str]]:
    """The short form of a policy for the server."""
    return {HOST: [leaf.pin, BACKUP]}


@pytest.fixture(autouse=True)
def _reports_have_arrived() -> Iterator[None]:
    """Reports are written by a thread: those of one test are not to appear in the log of the next."""
    yield
    worker.flush(10)


class Wire:
    """
    A TCP relay that keeps the bytes that clients sent.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.sent = b""
        self.connections = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def records(self) -> list[int]:
        """The content types of the TLS records that clients sent (RFC 8446 section 5.1), without CCS."""
        types, data = [], self.sent
        while len(data) >= 5:
            types.append(data[0])
            data = data[5 + int.from_bytes(data[3:5], "big") :]
        return [kind for kind in types if kind != 20]

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(5)
                if self._target == 0:
                    client.close()
                    return
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                self._start(self._pump, client, server, True)
                self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if keep:
                    self.sent += data
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            if side is sink:
                continue
        source.close()

    def close(self) -> None:
        self._target = 0
        with suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=5).close()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """A `Wire` in front of *port* while the block lasts."""
    relay = Wire(port)
    relay._start(relay.run)
    try:
        yield relay
    finally:
        relay.close()
