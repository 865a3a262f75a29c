"""
SOCKS5 as a way to connect, through proxies that stall, lie, break off, and answer byte by byte.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import select
import socket
import sys
import warnings

import anyio
import httpcore
import pytest
from conftest import HOST
from peers import (
    LOOPS,
    PATIENCE,
    Hold,
    echo,
    open_sockets,
    opened_since,
    origin_context,
    peer,
    read_exactly,
    reset,
    tls_peer,
)

from pinset import ContextError, Pinner
from pinset._socks import SocksBackend
from pinset._tls_layer import OriginContext

every_loop = pytest.mark.parametrize("loop", LOOPS)
GRANTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"


@pytest.fixture
def origin(genuine, rogue, pins) -> OriginContext:
    """What httpcore is given for a pinned origin."""
    return origin_context(Pinner(pins), genuine.client_context(rogue))


def take(client: socket.socket, size: int) -> bytes:
    """*size* bytes, or a broken connection."""
    if len(data := read_exactly(client, size)) < size:
        raise ConnectionError
    return data


class Proxy:
    """
    A SOCKS5 proxy for one connection at a time, that notes what it was asked and connects.
    """

    def __init__(self, *, granted: bytes = GRANTED, auth: bytes = b"", slow: bool = False) -> None:
        self.granted, self.auth, self.slow = granted, auth, slow
        self.asked: list[tuple[int, bytes, int]] = []
        self.methods: list[bytes] = []

    def __call__(self, client: socket.socket) -> None:
        methods = take(client, take(client, 2)[1])
        self.methods.append(methods)
        if self.auth:
            self._say(client, b"\x05\x02")
            version, size = take(client, 2)
            user = take(client, size)
            password = take(client, take(client, 1)[0])
            right = version == 1 and user + b":" + password == self.auth
            self._say(client, b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        else:
            self._say(client, b"\x05\x00")
        kind = take(client, 4)[3]
        size = {1: 4, 4: 16}.get(kind) or take(client, 1)[0]
        host = take(client, size)
        port = int.from_bytes(take(client, 2), "big")
        self.asked.append((kind, host, port))
        address = host.decode() if kind == 3 else str(ipaddress.ip_address(host))
        with socket.create_connection((address, port), timeout=PATIENCE) as target:
            self._say(client, self.granted)
            self._carry(client, target)

    def _say(self, client: socket.socket, words: bytes) -> None:
        for piece in [words[i : i + 1] for i in range(len(words))] if self.slow else [words]:
            client.sendall(piece)

    @staticmethod
    def _carry(client: socket.socket, target: socket.socket) -> None:
        while True:
            for source in select.select([client, target], [], [], PATIENCE)[0]:
                data = source.recv(65536)
                if not data:
                    return
                (target if source is client else client).sendall(data)


@every_loop
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "byte-by-byte"])
@pytest.mark.parametrize("granted", [GRANTED, b"\x05\x00\x00\x04" + bytes(18), b"\x05\x00\x00\x03\x03abc\x00\x50"])
def test_through_a_proxy(loop, slow, granted, leaf, origin) -> None:
    """The proxy gets the name, not an address of our own finding; TLS with the origin goes through, pinned."""
    proxy = Proxy(slow=slow, granted=granted)

    async def run() -> None:
        with tls_peer(leaf.server_context(), echo) as server, peer(proxy) as socks:
            stream = await SocksBackend("127.0.0.1", socks.port).connect_tcp(HOST, server.port, timeout=10)
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", socks.port)
            assert stream.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            stream = await stream.start_tls(origin, HOST, timeout=10)
            assert stream.get_extra_info("pinset").outcome == "matched"
            await stream.write(b"hello", timeout=10)
            assert await stream.read(5, timeout=10) == b"hello"
            await stream.aclose()
            assert proxy.asked == [(3, HOST.encode(), server.port)]
            assert proxy.methods == [b"\x00"]

    LOOPS[loop](run)


@every_loop
@pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", 1), ("::1", 4)])
def test_addresses(loop, host, kind) -> None:
    """An address is asked for as an address, and the proxy itself may be on IPv6."""
    proxy = Proxy()

    async def run() -> None:
        with peer(echo, host) as server, peer(proxy, host) as socks:
            stream = await SocksBackend(host, socks.port).connect_tcp(
                host, server.port, timeout=10, socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
            )
            assert stream.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            await stream.write(b"hello", timeout=10)
            assert await stream.read(5, timeout=10) == b"hello"
            await stream.aclose()
            assert proxy.asked == [(kind, ipaddress.ip_address(host).packed, server.port)]

    LOOPS[loop](run)


@every_loop
def test_user_and_password(loop) -> None:
    """They are offered and sent (RFC 1929); the proxy's no is a ProxyError."""
    proxy = Proxy(auth=b"user:secret")

    async def run() -> None:
        with peer(echo) as server, peer(proxy) as socks:
            backend = SocksBackend("127.0.0.1", socks.port, (b"user", b"secret"))
            stream = await backend.connect_tcp("127.0.0.1", server.port, timeout=10)
            await stream.aclose()
            assert b"\x02" in proxy.methods[0]
            for auth in ((b"user", b"wrong"), None):
                backend = SocksBackend("127.0.0.1", socks.port, auth)
                with pytest.raises(httpcore.ProxyError, match="(?i)authentication") as caught:
                    await backend.connect_tcp("127.0.0.1", server.port, timeout=10)
                assert "wrong" not in str(caught.value)

    LOOPS[loop](run)


@pytest.mark.parametrize(
    "auth", [("ü".encode(), b"secret"), (b"user", b""), (b"", b"secret"), (b"user", b"x" * 256), (b"u" * 256, b"x")]
)
def test_credentials_that_the_protocol_cannot_carry(auth) -> None:
    """They are refused when the backend is made, without being shown."""
    with pytest.raises(ContextError, match="RFC 1929") as caught:
        SocksBackend("127.0.0.1", 1080, auth)
    assert "secret" not in str(caught.value)


def test_without_the_extra(monkeypatch) -> None:
    """The error names what to install."""
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ContextError, match=r"pip install 'pinset\[socks\]'"):
        SocksBackend("127.0.0.1", 1080)


REFUSALS = {
    "no method": (b"\x05\xff", "method"),
    "GSSAPI": (b"\x05\x01", "method"),
    "an unknown method": (b"\x05\x77", "method"),
    "SOCKS4": (b"\x04\x00", "version"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "version"),
    "an end": (b"", "closed"),
    "half a word": (b"\x05", "closed"),
    "refused": (b"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", "refused"),
    "not allowed": (b"\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", "not allowed"),
    "unreachable": (b"\x05\x00\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00", "unreachable"),
    "an unknown reply": (b"\x05\x00\x05\x99\x00\x01\x00\x00\x00\x00\x00\x00", "reply"),
    "an unknown address": (b"\x05\x00\x05\x00\x00\x09\x00\x00\x00\x00\x00\x00", "address"),
    "a name of bytes": (b"\x05\x00\x05\x00\x00\x03\x02\xff\xfe\x00\x00", "decode"),
    "another version": (b"\x05\x00\x09\x00\x00\x01\x00\x00\x00\x00\x00\x00", "version"),
    "an end in the reply": (b"\x05\x00\x05\x00\x00\x01\x00", "closed"),
}


@every_loop
@pytest.mark.parametrize("kind", REFUSALS)
def test_refusals_and_nonsense(loop, kind) -> None:
    """What a proxy may say instead of yes is a ProxyError with its words, and the socket is closed."""
    said, words = REFUSALS[kind]

    def talk(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(said[:2])
        if len(said) > 2:
            client.recv(100)
            client.sendall(said[2:])
        client.shutdown(socket.SHUT_WR)
        while client.recv(100):
            pass

    async def run() -> None:
        with peer(talk) as socks:
            before = open_sockets()
            with pytest.raises(httpcore.ProxyError, match=f"(?i)127.0.0.1:{socks.port}.*{words}"):
                await SocksBackend("127.0.0.1", socks.port).connect_tcp(HOST, 443, timeout=10)
            await anyio.sleep(0.01)
            assert not opened_since(before, socks.port)

    LOOPS[loop](run)


@every_loop
def test_unreachable_and_broken(loop) -> None:
    """A proxy that is not there, or resets, is a ConnectError."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(httpcore.ConnectError):
            await SocksBackend("127.0.0.1", port).connect_tcp(HOST, 443, timeout=10)
        with pytest.raises(httpcore.ConnectError):
            await SocksBackend("nobody.invalid", 1080).connect_tcp(HOST, 443, timeout=10)
        with peer(lambda client: (client.recv(100), reset(client))) as socks:
            with pytest.raises((httpcore.ConnectError, httpcore.ProxyError)):
                await SocksBackend("127.0.0.1", socks.port).connect_tcp(HOST, 443, timeout=10)

    LOOPS[loop](run)


@every_loop
@pytest.mark.parametrize("said", [b"", b"\x05", b"\x05\x00", b"\x05\x00\x05\x00\x00"])
def test_a_proxy_that_stalls(loop, said) -> None:
    """The time covers the greeting, wherever it stops."""
    hold = Hold()

    def talk(client: socket.socket) -> None:
        client.sendall(said)
        hold.wait()

    async def run() -> None:
        with peer(talk) as socks:
            before = open_sockets()
            with pytest.raises(httpcore.ConnectTimeout):
                await SocksBackend("127.0.0.1", socks.port).connect_tcp(HOST, 443, timeout=0.05)
            await anyio.sleep(0.01)
            assert not opened_since(before, socks.port)
            hold.let_go()

    LOOPS[loop](run)


@every_loop
@pytest.mark.parametrize("host", ["a" * 64 + ".test", "x." * 200 + "test"])
def test_a_name_that_the_protocol_cannot_carry(loop, host) -> None:
    """A name too long for SOCKS5 is an error of httpcore, too."""

    async def run() -> None:
        with peer(Proxy()) as socks:
            with pytest.raises((httpcore.ConnectError, httpcore.ProxyError)):
                await SocksBackend("127.0.0.1", socks.port).connect_tcp(host, 443, timeout=10)

    LOOPS[loop](run)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_cancelled_at_every_await(loop) -> None:
    """Wherever the greeting is cancelled, no socket stays open."""
    cut_short = 0
    proxy = Proxy(slow=True)

    async def attempt(port: int, server: int, turns: int) -> bool:
        backend = SocksBackend("127.0.0.1", port)
        task = asyncio.ensure_future(backend.connect_tcp("127.0.0.1", server, timeout=10))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            stream = await task
        except asyncio.CancelledError:
            return True
        await stream.aclose()
        return False

    async def run() -> None:
        nonlocal cut_short
        with peer(echo) as server, peer(proxy) as socks:
            before = open_sockets()
            for turns in [*range(30), *range(30, 300, 10)]:
                cut_short += await attempt(socks.port, server.port, turns)
                await asyncio.sleep(0)
                # The proxy has a socket to the server, too; only ours talks to the proxy.
                left = [peer for _, peer in opened_since(before, socks.port) if peer and peer[1] == socks.port]
                assert not left, f"left open after {turns} turns"

    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            LOOPS[loop](run)
            gc.collect()
    finally:
        gc.enable()
    assert cut_short > 3


@every_loop
def test_cancelled_by_a_scope(loop) -> None:
    """anyio's cancellation closes the socket to a proxy that stalls."""
    hold = Hold()

    async def run() -> None:
        with peer(lambda _: hold.wait()) as socks:
            before = open_sockets()
            with anyio.move_on_after(0.05) as scope:
                await SocksBackend("127.0.0.1", socks.port).connect_tcp(HOST, 443, timeout=None)
            assert scope.cancelled_caught
            await anyio.sleep(0.01)
            assert not opened_since(before, socks.port)
            hold.let_go()

    LOOPS[loop](run)
