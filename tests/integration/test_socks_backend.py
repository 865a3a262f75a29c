"""
The SOCKS backend through real proxies, on every event loop.
"""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress

import httpcore
import pytest
from conftest import HOST
from peers import LOOPS, PATIENCE, echo, origin_context, peer, tls_peer

from pinset import PinMismatchError, Pinner
from pinset._socks import SocksBackend
from pinset._tls_layer import OriginContext

pytestmark = pytest.mark.integration
every_loop = pytest.mark.parametrize("loop", LOOPS)
every_proxy = pytest.mark.parametrize("proxy", ["microsocks", "dante"], indirect=True)


@pytest.fixture
def origin(genuine, rogue, pins) -> OriginContext:
    """What httpcore is given for a pinned origin."""
    return origin_context(Pinner(pins), genuine.client_context(rogue))


@pytest.fixture(scope="module")
def guarded(require_program):
    """The port of a microsocks that asks for a user and a password."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [require_program("microsocks"), "-i", "127.0.0.1", "-p", str(port), "-u", "user", "-P", "secret"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.01)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


async def ask(stream) -> None:
    await stream.write(b"hello", timeout=10)
    assert await stream.read(5, timeout=10) == b"hello"
    await stream.aclose()


@every_loop
@every_proxy
def test_a_pinned_origin(loop, proxy, leaf, impostor, origin) -> None:
    """TLS with the origin goes through the proxy; an impostor behind it is refused."""

    async def run() -> None:
        backend = SocksBackend("127.0.0.1", proxy.port)
        with tls_peer(leaf.server_context(), echo) as server:
            stream = await backend.connect_tcp(HOST, server.port, timeout=10)
            stream = await stream.start_tls(origin, HOST, timeout=10)
            assert stream.get_extra_info("pinset").outcome == "matched"
            await ask(stream)
        with tls_peer(impostor.server_context(), echo) as server:
            stream = await backend.connect_tcp(HOST, server.port, timeout=10)
            with pytest.raises(PinMismatchError):
                await stream.start_tls(origin, HOST, timeout=10)

    LOOPS[loop](run)


@every_loop
@every_proxy
def test_a_refusal(loop, proxy) -> None:
    """A port that nobody listens on is the proxy's to report."""

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(httpcore.ProxyError, match="(?i)refused|failure"):
            await SocksBackend("127.0.0.1", proxy.port).connect_tcp(HOST, port, timeout=10)

    LOOPS[loop](run)


@every_loop
def test_an_address_of_ipv6(loop, microsocks) -> None:
    """An IPv6 address is asked for as one."""

    async def run() -> None:
        with peer(echo, "::1") as server:
            await ask(await SocksBackend("127.0.0.1", microsocks.port).connect_tcp("::1", server.port, timeout=10))

    LOOPS[loop](run)


@every_loop
def test_a_password(loop, guarded) -> None:
    """The right one opens, a wrong one or none does not."""

    async def run() -> None:
        with peer(echo) as server:
            backend = SocksBackend("127.0.0.1", guarded, (b"user", b"secret"))
            await ask(await backend.connect_tcp(HOST, server.port, timeout=10))
            for auth in ((b"user", b"wrong"), None):
                with pytest.raises(httpcore.ProxyError):
                    await SocksBackend("127.0.0.1", guarded, auth).connect_tcp(HOST, server.port, timeout=10)

    LOOPS[loop](run)
