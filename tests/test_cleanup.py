"""
Whatever a request was doing when it was given up: no socket, no task and no place in the pool is lost.
"""

from __future__ import annotations

import anyio
import httpx
import pytest
from h2.settings import SettingCodes
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import HTTP2, Scripted, wait_for
from stages import ONE, STAGES, WAYS, assert_clean_at

import pinset

ways = pytest.mark.parametrize("way", WAYS)
protocols = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])


@pytest.fixture(scope="session")
def secure(leaf):
    """The TLS of the servers, by whether they speak HTTP/2."""
    return {False: leaf.server_context(), True: leaf.server_context(alpn=("h2",))}


@pytest.fixture
def transport(pins, genuine):
    """A pinned transport with one place, when it is called."""
    return lambda **options: pinset.PinnedAsyncTransport(pins, verify=genuine.client_context(), limits=ONE, **options)


@protocols
@pytest.mark.parametrize("stage", STAGES)
@ways
def test_given_up(secure, transport, way, stage, http2):
    """On the direct road."""
    assert_clean_at(
        way,
        lambda peer: STAGES[stage](peer, secure[http2], http2),
        lambda _: transport(http2=http2),
        secure[http2],
        upload=stage == "upload",
        http2=http2,
    )


def _silent_proxy(peer):
    peer.stall()


def _proxy_that_hears(peer):
    peer.receive()
    peer.stall()


def _proxy_that_half_answers(peer):
    peer.head()
    peer.send(b"HTTP/1.1 200 Connection est")
    peer.stall()


def _socks_that_greets(peer):
    peer.receive()
    peer.send(b"\x05\x00")
    peer.stall()


def _socks_that_half_greets(peer):
    peer.receive()
    peer.send(b"\x05")
    peer.stall()


def _socks_that_half_answers(peer):
    peer.receive()
    peer.send(b"\x05\x00")
    peer.receive()
    peer.send(b"\x05\x00\x00\x01\x7f")
    peer.stall()


PROXIES = {
    "connect-silent": ("http", _silent_proxy),
    "connect-heard": ("http", _proxy_that_hears),
    "connect-half": ("http", _proxy_that_half_answers),
    "https-silent": ("https", _silent_proxy),
    "https-heard": ("https", _proxy_that_hears),
    "socks-silent": ("socks5", _silent_proxy),
    "socks-heard": ("socks5", _proxy_that_hears),
    "socks-half-greeting": ("socks5", _socks_that_half_greets),
    "socks-greeting": ("socks5", _socks_that_greets),
    "socks-half": ("socks5", _socks_that_half_answers),
}


@pytest.mark.parametrize("proxy", PROXIES)
@ways
def test_given_up_at_a_proxy(secure, transport, way, proxy):
    """The proxy itself is what stalls."""
    scheme, script = PROXIES[proxy]
    assert_clean_at(
        way,
        script,
        lambda stalled: transport(proxy=f"{scheme}://127.0.0.1:{stalled.port}"),
        secure[False],
        url=lambda _: "https://localhost:9/",
    )


@pytest.mark.parametrize("path", ["/hangs", "/half"])
@pytest.mark.parametrize("loop", LOOPS)
def test_abandoned_http2_streams_do_not_pile_up(secure, transport, genuine, loop, path):
    """After a hundred requests given up, stock fails every later one on that connection, and ours none."""

    def script(peer):
        peer.wrap(secure[True])
        http = HTTP2(peer, {SettingCodes.MAX_CONCURRENT_STREAMS: 100})
        while True:
            request = http.request()
            if request.path == "/half":
                http.begin(request.stream)
            if request.path == "/good":
                http.respond(request.stream)
            else:
                peer.stalled = True

    async def steps(tested):
        with Scripted(script) as server:
            async with httpx.AsyncClient(transport=tested, timeout=20) as client:
                assert (await client.get(server.url("/good"))).status_code == 200
                for _ in range(100):
                    for peer in server.peers:
                        peer.stalled = False
                    async with anyio.create_task_group() as group:
                        group.start_soon(client.get, server.url(path))
                        await wait_for(lambda: server.stalls, "the request")
                        group.cancel_scope.cancel()
                return (await client.get(server.url("/good"))).status_code

    async def run_stock():
        with pytest.raises(httpx.LocalProtocolError, match="Max outbound streams"):
            await steps(httpx.AsyncHTTPTransport(verify=genuine.client_context(), http2=True, limits=ONE))

    async def run_ours():
        watch = Watch()
        assert await steps(transport(http2=True)) == 200
        await watch.assert_nothing_left()

    if loop == "asyncio":
        LOOPS[loop](run_stock)
    with collector_off():
        LOOPS[loop](run_ours)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_busy_http2_connection_outlives_an_abandoned_stream(secure, transport, loop):
    """Others go on with it, also at one connection; it is closed when the last of them has ended."""

    def script(peer):
        peer.wrap(secure[True])
        http = HTTP2(peer)
        slow = 0
        while True:
            request = http.request()
            if request.path == "/slow":
                slow = request.stream
                http.begin(slow)
            elif request.path == "/hangs":
                peer.stalled = True
            else:
                http.respond(request.stream)
            if request.path == "/end":
                http.data(slow, b"slow", end=True)

    async def run():
        with Scripted(script) as server:
            tested = transport(http2=True)
            async with httpx.AsyncClient(transport=tested, timeout=20) as client:
                async with client.stream("GET", server.url("/slow")) as slow:
                    async with anyio.create_task_group() as group:
                        group.start_soon(client.get, server.url("/hangs"))
                        await wait_for(lambda: server.stalls, "the request")
                        group.cancel_scope.cancel()
                    assert (await client.get(server.url("/other"))).status_code == 200
                    assert (await client.get(server.url("/end"))).status_code == 200
                    assert await slow.aread() == b"slow"
                assert server.connections == 1
                assert counts(tested) == (0, 0, 0, 0)
                assert (await client.get(server.url("/other"))).status_code == 200
                assert server.connections == 2

    LOOPS[loop](run)
