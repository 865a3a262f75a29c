"""
Connecting: names and addresses, options, errors, and no socket left behind on any way out.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import warnings
from contextlib import contextmanager, suppress

import anyio
import httpcore
import pytest
from conftest import HOST
from peers import LOOPS, Hold, echo, is_open, open_sockets, opened_since, origin_context, peer, tls_peer

from pinset import ContextError, Pinner
from pinset._network import PinnedBackend
from pinset._tls_layer import OriginContext

every_loop = pytest.mark.parametrize("loop", LOOPS)
own_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.fixture
def origin(genuine, rogue, pins) -> OriginContext:
    """What httpcore is given for a pinned origin."""
    return origin_context(Pinner(pins), genuine.client_context(rogue))


@pytest.fixture
def unused_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def deaf():
    """The port of a listener whose queue is full: the kernel does not answer who knocks."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        knocking = [socket.socket() for _ in range(4)]
        for one in knocking:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(listener.getsockname())
        yield listener.getsockname()[1]
        for one in knocking:
            one.close()


@every_loop
def test_errors(loop, unused_port, tmp_path) -> None:
    """Whatever keeps a connection from being made is a ConnectError, a full queue a ConnectTimeout."""
    backend = PinnedBackend()

    async def run() -> None:
        before = open_sockets()
        for host in ("127.0.0.1", HOST):
            with pytest.raises(httpcore.ConnectError, match="[Cc]onnect|[Rr]efused"):
                await backend.connect_tcp(host, unused_port, timeout=10)
        for host in ("nobody.invalid", "a" * 64 + ".invalid", "::1::", "1.2.3.4.5.6"):
            with pytest.raises(httpcore.ConnectError):
                await backend.connect_tcp(host, unused_port, timeout=10)
        for path in (str(tmp_path / "missing"), str(tmp_path)):
            with pytest.raises(httpcore.ConnectError):
                await backend.connect_unix_socket(path, timeout=10)
        with deaf() as port:
            noted = open_sockets()
            with pytest.raises(httpcore.ConnectTimeout, match="time"):
                await backend.connect_tcp("127.0.0.1", port, timeout=0.05)
            assert not open_sockets() - noted
        assert not open_sockets() - before

    LOOPS[loop](run)


@every_loop
def test_local_address(loop) -> None:
    """The connection comes from the address that was asked for, if the host has one of its family."""
    seen: list[object] = []

    def talk(connection) -> None:
        seen.append(connection.getpeername()[0])
        connection.sendall(b"x")

    async def run() -> None:
        with peer(talk) as server:
            for local in ("127.0.0.3", "127.0.0.1"):
                stream = await PinnedBackend().connect_tcp(HOST, server.port, timeout=10, local_address=local)
                assert stream.get_extra_info("client_addr")[0] == local
                assert await stream.read(1, timeout=10) == b"x"
                await stream.aclose()
            before = open_sockets()
            # anyio on trio leaves a socket that it cannot bind to the garbage collector.
            for wrong in () if loop == "trio" else ("::1", "203.0.113.7"):
                with pytest.raises(httpcore.ConnectError):
                    await PinnedBackend().connect_tcp("127.0.0.1", server.port, timeout=10, local_address=wrong)
            assert not opened_since(before, server.port)
        with peer(talk, "::1") as server:
            stream = await PinnedBackend().connect_tcp("::1", server.port, timeout=10, local_address="::1")
            assert await stream.read(1, timeout=10) == b"x"
            await stream.aclose()
        assert seen == ["127.0.0.3", "127.0.0.1", "::1"]

    LOOPS[loop](run)


@pytest.mark.parametrize("local", ["127.0.0.1", "::1"])
def test_local_address_chooses_the_family(local, monkeypatch) -> None:
    """Of a host with addresses of both families, the one that fits is taken, whichever comes first."""
    resolve = socket.getaddrinfo

    def both(host, port, *args, **kwargs):
        if host != "two.test":
            return resolve(host, port, *args, **kwargs)
        return [*resolve("::1", port, *args, **kwargs), *resolve("127.0.0.1", port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", both)

    async def run() -> None:
        with peer(echo, local) as server:
            stream = await PinnedBackend().connect_tcp("two.test", server.port, timeout=10, local_address=local)
            assert stream.get_extra_info("client_addr")[0] == local
            await stream.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("good", ["127.0.0.1", "::1"])
def test_next_address(good, monkeypatch) -> None:
    """An address that refuses, or does not answer, is passed over for the next; its socket is closed."""
    resolve = socket.getaddrinfo

    def all_of_them(host, port, *args, **kwargs):
        if host != "many.test":
            return resolve(host, port, *args, **kwargs)
        hosts = [("127.0.0.9", port), (good, port)]
        return [entry for host, port in hosts for entry in resolve(host, port, *args, **kwargs)]

    async def run() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", all_of_them)
        with peer(echo, good) as server:
            before = open_sockets()
            stream = await PinnedBackend().connect_tcp("many.test", server.port, timeout=10)
            assert stream.get_extra_info("server_addr")[0] == good
            await stream.write(b"x")
            assert await stream.read(1, timeout=10) == b"x"
            await stream.aclose()
        await anyio.sleep(0.01)
        assert not open_sockets() - before

    asyncio.run(run())  # uvloop does not resolve through the socket module, and on trio it is all anyio's


@every_loop
def test_socket_options(loop) -> None:
    """TCP_NODELAY is on unless it is switched off; options are set; a wrong one is an error and leaves nothing open."""
    off = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    alive = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def option(stream, name) -> int:
        return stream.get_extra_info("socket").getsockopt(*name[:2])

    async def run() -> None:
        with peer(echo) as server:
            for options, nodelay, keepalive in (((), 1, 0), ((off,), 0, 0), ((alive,), 1, 1)):
                stream = await PinnedBackend().connect_tcp(HOST, server.port, timeout=10, socket_options=options)
                assert bool(option(stream, off)) == bool(nodelay)
                assert bool(option(stream, alive)) == bool(keepalive)
                await stream.aclose()
            before = open_sockets()
            with pytest.raises(httpcore.ConnectError):
                await PinnedBackend().connect_tcp(HOST, server.port, timeout=10, socket_options=[(999, 999, 1)])
            with pytest.raises(TypeError):
                await PinnedBackend().connect_tcp(HOST, server.port, timeout=10, socket_options=[("no", "option", 1)])
            await anyio.sleep(0.01)
            assert not opened_since(before, server.port)

    LOOPS[loop](run)


@every_loop
def test_unix_socket(loop, tmp_path) -> None:
    """A Unix socket carries what a TCP connection does, with options."""
    path = str(tmp_path / "socket")

    async def run() -> None:
        with peer(echo, path):
            options = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)]
            stream = await PinnedBackend().connect_unix_socket(path, timeout=10, socket_options=options)
            assert stream.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 100_000
            await stream.write(b"x" * 200_000, timeout=10)
            assert await stream.read(1, timeout=10) == b"x"
            await stream.aclose()
            with pytest.raises(httpcore.ConnectError):
                await PinnedBackend().connect_unix_socket(path, timeout=10, socket_options=[(999, 999, 1)])

    LOOPS[loop](run)


def test_a_loop_that_takes_a_descriptor_for_used() -> None:
    """uvloop says so by a RuntimeError; it is a ConnectError like any other."""

    class Confused(asyncio.SelectorEventLoop):
        async def sock_connect(self, sock, address):
            raise RuntimeError(f"File descriptor {sock.fileno()} is used by transport")

    async def run() -> None:
        before = open_sockets()
        with pytest.raises(httpcore.ConnectError, match="is used by transport"):
            await PinnedBackend().connect_tcp("127.0.0.1", 443, timeout=10)
        assert not open_sockets() - before

    with asyncio.Runner(loop_factory=Confused) as runner:
        runner.run(run())


@every_loop
def test_sleep(loop) -> None:
    """httpcore's retries sleep through the backend."""
    LOOPS[loop](PinnedBackend().sleep, 0.001)


@every_loop
def test_handshake_times_out(loop, origin) -> None:
    """A server that says nothing is a ConnectTimeout, and the socket is closed."""
    hold = Hold()

    async def run() -> None:
        with peer(lambda _: hold.wait()) as server:
            stream = await PinnedBackend().connect_tcp(HOST, server.port, timeout=10)
            descriptor = stream.get_extra_info("socket").fileno()
            with pytest.raises(httpcore.ConnectTimeout):
                await stream.start_tls(origin, HOST, timeout=0.05)
            assert not is_open(descriptor)
            hold.let_go()

    LOOPS[loop](run)


@every_loop
@pytest.mark.parametrize("name", ["", ".starts.with.a.dot", "a" * 300])
def test_a_name_that_openssl_does_not_take(loop, name, origin) -> None:
    """A server name without a form in TLS closes the socket, too."""

    async def run() -> None:
        with peer(echo) as server:
            stream = await PinnedBackend().connect_tcp(HOST, server.port, timeout=10)
            descriptor = stream.get_extra_info("socket").fileno()
            with pytest.raises((httpcore.ConnectError, ValueError)):
                await stream.start_tls(origin, name, timeout=10)
            assert not is_open(descriptor)

    LOOPS[loop](run)


@every_loop
def test_a_context_that_lost_our_class(loop, origin) -> None:
    """A context that no longer yields our TLS objects is refused, and the socket is closed."""

    async def run() -> None:
        origin.context.sslobject_class = ssl.SSLObject
        with peer(echo) as server:
            stream = await PinnedBackend().connect_tcp(HOST, server.port, timeout=10)
            descriptor = stream.get_extra_info("socket").fileno()
            with pytest.raises(ContextError, match="no longer yields"):
                await stream.start_tls(origin, HOST, timeout=10)
            assert not is_open(descriptor)

    LOOPS[loop](run)


async def _connect(server, origin):
    return await PinnedBackend().connect_tcp(HOST, server.port, timeout=10)


async def _connect_to_an_address(server, origin):
    return await PinnedBackend().connect_tcp("127.0.0.1", server.port, timeout=10)


async def _connect_from_an_address(server, origin):
    return await PinnedBackend().connect_tcp(HOST, server.port, timeout=10, local_address="127.0.0.1")


async def _shake_hands(server, origin):
    return await (await _connect_to_an_address(server, origin)).start_tls(origin, HOST, timeout=10)


async def _ask(server, origin):
    stream = await _shake_hands(server, origin)
    try:
        await stream.write(b"?" * 100_000, timeout=10)
        await stream.read(100, timeout=10)
    except BaseException:
        await stream.aclose()
        raise
    return stream


@own_loops
@pytest.mark.parametrize(
    "operation",
    [_connect, _connect_to_an_address, _connect_from_an_address, _shake_hands, _ask],
    ids=lambda o: o.__name__,
)
def test_cancelled_at_every_await(loop, operation, origin, leaf) -> None:
    """Wherever the task is cancelled, no socket stays open, and none is left to the garbage collector."""
    cut_short = 0

    async def attempt(server, turns: int) -> bool:
        task = asyncio.ensure_future(operation(server, origin))
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
        with tls_peer(leaf.server_context(), echo) as server:
            before = open_sockets()
            for turns in [*range(40), *range(40, 400, 10)]:
                cut_short += await attempt(server, turns)
                await asyncio.sleep(0)
                assert not opened_since(before, server.port), f"left open after {turns} turns"

    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            LOOPS[loop](run)
            gc.collect()
    finally:
        gc.enable()
    assert cut_short > 3
