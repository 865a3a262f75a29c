"""
Who waits for a connection: deadlines of their own, turns in the order of arrival, and httpx's limits.
"""

from __future__ import annotations

import threading

import anyio
import httpx
import pytest
from h2.settings import SettingCodes
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import HTTP2, PATIENCE, Scripted, serve_http1, serve_http2, wait_for
from stages import ONE

import pinset

loops = pytest.mark.parametrize("loop", LOOPS)
protocols = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])


@pytest.fixture(scope="session")
def secure(leaf):
    """The TLS of the servers, by whether they speak HTTP/2."""
    return {False: leaf.server_context(), True: leaf.server_context(alpn=("h2", "http/1.1"))}


@pytest.fixture
def client(pins, genuine):
    """A pinned client, when it is called."""

    def make(*, http2=False, limits=ONE, timeout=20.0):
        transport = pinset.PinnedAsyncTransport(pins, verify=genuine.client_context(), http2=http2, limits=limits)
        return httpx.AsyncClient(transport=transport, timeout=timeout)

    return make


def hesitant(context):
    """A server that shakes hands once it is released, and then answers over HTTP/2."""

    def script(peer):
        peer.stall()
        serve_http2(context)(peer)

    return script


@loops
def test_waiters_of_one_connect_have_their_own_deadlines(secure, client, loop):
    """The impatient one hears a ConnectTimeout; the one that began to connect, and a patient one, are answered."""

    async def run():
        with collector_off(), Scripted(hesitant(secure[True])) as server:
            watch = Watch(server.port)
            answers = []
            async with client(http2=True) as tested:

                async def get():
                    answers.append((await tested.get(server.url())).http_version)

                async with anyio.create_task_group() as group:
                    group.start_soon(get)
                    await wait_for(lambda: server.stalls, "the connection")
                    group.start_soon(get)
                    with pytest.raises(httpx.ConnectTimeout):
                        await tested.get(server.url(), timeout=httpx.Timeout(20, connect=0.1))
                    assert answers == []
                    server.released.set()
                assert answers == ["HTTP/2"] * 2
                assert server.connections == 1
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_whoever_began_to_connect_may_leave(secure, client, loop):
    """The others get the connection that it began."""

    async def run():
        with collector_off(), Scripted(hesitant(secure[True])) as server:
            watch = Watch(server.port)
            answers = []
            async with client(http2=True) as tested:

                async def get():
                    answers.append((await tested.get(server.url())).http_version)

                async with anyio.create_task_group() as others:
                    async with anyio.create_task_group() as first:
                        first.start_soon(tested.get, server.url())
                        await wait_for(lambda: server.stalls, "the connection")
                        for _ in range(3):
                            others.start_soon(get)
                        await anyio.wait_all_tasks_blocked()
                        first.cancel_scope.cancel()
                    server.released.set()
                assert answers == ["HTTP/2"] * 3
                assert server.connections == 1
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@protocols
@loops
def test_the_last_to_leave_ends_the_connect(secure, client, loop, http2):
    """Nobody waits any more, so nothing is connected."""

    async def run():
        with collector_off(), Scripted(hesitant(secure[True])) as server:
            watch = Watch(server.port)
            async with client(http2=http2) as tested:
                async with anyio.create_task_group() as group:
                    for _ in range(3):
                        group.start_soon(tested.get, server.url())
                    await wait_for(lambda: server.stalls, "the connection")
                    group.cancel_scope.cancel()
                assert counts(tested._transport) == (0, 0, 0, 0)
                await wait_for(lambda: not server.open, "the server to see the end")
                assert server.connections == 1
                await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_waiting_for_a_stream_ends_in_time(secure, client, loop):
    """The server allows one stream: the second request waits for it, until its pool timeout or its cancellation."""
    go = threading.Event()

    def script(peer):
        peer.wrap(secure[True])
        http = HTTP2(peer, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        while True:
            stream = http.request().stream
            http.begin(stream)
            go.wait(PATIENCE)
            http.data(stream, b"whole", end=True)

    async def run():
        go.clear()
        with Scripted(script) as server:
            async with client(http2=True) as tested:
                async with tested.stream("GET", server.url()) as slow:
                    with pytest.raises(httpx.PoolTimeout):
                        await tested.get(server.url(), timeout=httpx.Timeout(20, pool=0.1))
                    with anyio.move_on_after(0.1) as scope:
                        await tested.get(server.url())
                    assert scope.cancelled_caught
                    assert counts(tested._transport)[0] == 0
                    go.set()
                    assert await slow.aread() == b"whole"
                assert (await tested.get(server.url())).content == b"whole"
                assert server.connections == 1

    LOOPS[loop](run)


@protocols
@loops
def test_a_trace_callback_that_raises(secure, client, loop, http2):
    """At whatever step it raises, its error comes out, and nothing is lost at one connection."""
    script = serve_http2 if http2 else serve_http1

    class OwnError(Exception):
        pass

    async def run():
        names = []

        async def note(name, info):
            names.append(name)

        with collector_off(), Scripted(script(secure[http2])) as server:
            watch = Watch(server.port)
            async with client(http2=http2) as tested:
                await tested.get(server.url(), extensions={"trace": note})
            assert "connection.start_tls.complete" in names
            for bad in dict.fromkeys(names):

                async def fail(name, info, bad=bad):
                    if name == bad:
                        raise OwnError(name)

                async with client(http2=http2) as tested:
                    with pytest.raises(OwnError):
                        await tested.get(server.url(), extensions={"trace": fail})
                    queued, active, _, connecting = counts(tested._transport)
                    assert (queued, active, connecting) == (0, 0, 0), bad
                    assert (await tested.get(server.url())).status_code == 200
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_clients_that_share_a_context(secure, leaf, pins, genuine, monkeypatch, loop):
    """HTTP/1.1 and HTTP/2 clients of the default trust connect at the same time, with callbacks that let others run."""

    def both(peer):
        peer.wrap(secure[True])
        peer.wrap = lambda _: None
        (serve_http2 if peer.raw.selected_alpn_protocol() == "h2" else serve_http1)(None)(peer)

    async def pause(name, info):
        await anyio.sleep(0.001)

    async def run(path):
        monkeypatch.setenv("SSL_CERT_FILE", path)
        versions = []
        with Scripted(both) as server:

            async def get(http2):
                async with pinset.PinnedAsyncClient(pins, http2=http2, timeout=20) as tested:
                    response = await tested.get(server.url(), extensions={"trace": pause})
                    versions.append((http2, response.http_version))

            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(get, number % 2 == 0)
        assert sorted(versions) == [(False, "HTTP/1.1")] * 20 + [(True, "HTTP/2")] * 20

    with genuine.trust_file() as path:
        LOOPS[loop](run, path)


@loops
def test_everybody_has_a_turn(secure, client, loop):
    """Two hundred requests over three connections are served, in the order in which they came."""

    async def run():
        came, went = [], []
        with Scripted(serve_http1(secure[False])) as server:
            limits = httpx.Limits(max_connections=3)
            async with client(limits=limits, timeout=httpx.Timeout(20, pool=None)) as tested:

                async def get(number):
                    async def trace(name, info):
                        if name == "http11.send_request_headers.started":
                            went.append(number)

                    came.append(number)
                    response = await tested.get(server.url(f"/{number}"), extensions={"trace": trace})
                    assert response.status_code == 200

                async with anyio.create_task_group() as group:
                    for number in range(200):
                        group.start_soon(get, number)
                assert counts(tested._transport) == (0, 0, 3, 0)
            assert server.connections == 3
        assert sorted(went) == sorted(came) == list(range(200))
        # Three connections come about at the same time, in any order; whoever waits for a turn keeps its place.
        if loop != "trio":  # there tasks come in any order, and between httpx and the pool they change it again
            assert [number for number in went if number not in came[:3]] == came[3:]

    LOOPS[loop](run)


@loops
def test_pool_timeout(secure, client, genuine, loop):
    """As in stock: the one that waits too long hears PoolTimeout, and the connection is free afterwards."""

    async def steps(tested, server):
        async with tested:
            async with tested.stream("GET", server.url()):
                with pytest.raises(httpx.PoolTimeout):
                    await tested.get(server.url(), timeout=httpx.Timeout(20, pool=0.05))
            return (await tested.get(server.url())).status_code

    async def run():
        with Scripted(serve_http1(secure[False])) as server:
            stock = httpx.AsyncHTTPTransport(verify=genuine.client_context(), limits=ONE)
            assert await steps(httpx.AsyncClient(transport=stock, timeout=20), server) == 200
            assert await steps(client(), server) == 200

    LOOPS[loop](run)


@protocols
@loops
def test_keepalive_expiry(secure, client, loop, http2):
    """An idle connection that is too old is closed and not used again; one that never gets too old is."""
    script = (serve_http2 if http2 else serve_http1)(secure[http2])

    async def run():
        for expiry, connections in ((0.02, 2), (None, 1)):
            with Scripted(script) as server:
                limits = httpx.Limits(max_connections=5, keepalive_expiry=expiry)
                async with client(http2=http2, limits=limits) as tested:
                    await tested.get(server.url())
                    await anyio.sleep(0.1)
                    await tested.get(server.url())
                    assert server.connections == connections
                    await wait_for(lambda server=server: server.open == 1, "the old one to be closed")

    LOOPS[loop](run)


@loops
def test_max_keepalive_connections(secure, client, loop):
    """No more than so many stay idle."""
    all_here = threading.Barrier(5)

    def script(peer):
        peer.wrap(secure[False])
        peer.head()
        all_here.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        peer.head()

    async def run():
        with Scripted(script) as server:
            limits = httpx.Limits(max_connections=10, max_keepalive_connections=2)
            async with client(limits=limits) as tested:
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(tested.get, server.url())
                assert server.connections == 5
                assert counts(tested._transport) == (0, 0, 2, 0)
                await wait_for(lambda: server.open == 2, "three connections to be closed")

    LOOPS[loop](run)
