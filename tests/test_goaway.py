"""
What HTTP/2 servers refuse: sent again once if nothing was processed, never if something may have been.

The servers follow scripts, so that GOAWAY and RST_STREAM come when they hurt (RFC 9113 sections 6.8 and 8.7).
"""

from __future__ import annotations

import threading

import anyio
import h2.settings
import httpx
import pytest
from conftest import HOST
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import HTTP2, PATIENCE, HungUp, Scripted, wait_for

import pinset

STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
NO_MORE = 0x7FFF_FFFF
loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="session")
def secure(leaf):
    """The TLS of the scripted servers."""
    return leaf.server_context(alpn=("h2", "http/1.1"))


@pytest.fixture
def client(pins, genuine):
    """A pinned client that speaks HTTP/2, when it is called."""

    def make(**options):
        options = {"timeout": 20, "http2": True, **options}
        transport = pinset.PinnedAsyncTransport(
            pins,
            verify=genuine.client_context(),
            http2=options.pop("http2"),
            limits=options.pop("limits", httpx.Limits()),
        )
        return httpx.AsyncClient(transport=transport, **options)

    return make


@pytest.fixture
def stock(genuine):
    """A stock client that speaks HTTP/2."""
    return lambda: httpx.AsyncClient(verify=genuine.client_context(), http2=True, timeout=20)


def scripts(secure, *steps, settings=None):
    """The first connections follow *steps*, and later ones answer everything."""
    bodies = []

    def script(peer):
        peer.wrap(secure)
        http = HTTP2(peer, settings)
        if peer.number < len(steps):
            steps[peer.number](http)
            http.finish()
        while True:
            request = http.request()
            bodies.append(request)
            answer(http, request)

    script.requests = bodies
    return script


def answer(http, request):
    """200, with the method and the body that came."""
    body = request.method.encode() + b" " + request.body
    http.respond(request.stream, b"" if request.method == "HEAD" else body)


def goaway_below(http):
    """Take a request and say that it was not taken."""
    http.request()
    http.goaway(0)


def accept_and_refuse(http):
    """Take a request, announce the end of the connection, and refuse the request."""
    stream = http.request().stream
    http.goaway(NO_MORE)
    http.refuse(stream)


def goaway_above(http):
    """Take a request, say that it counts, and hang up without an answer."""
    http.goaway(http.request().stream)
    raise HungUp


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("way", ["GOAWAY", "REFUSED_STREAM"])
@loops
def test_what_was_not_processed_is_sent_again(secure, client, stock, loop, way, method):
    """Whatever the method, with its body, once; the stock client passes the failure on."""

    async def run():
        body = None if method in {"GET", "HEAD", "OPTIONS", "DELETE"} else b"body"
        requests = []

        def refuse_first(http):
            http.refuse(http.request().stream)
            while True:
                requests.append(http.request())
                answer(http, requests[-1])

        refusal = goaway_below if way == "GOAWAY" else refuse_first
        with Scripted(scripts(secure, refusal)) as server:
            async with stock() as theirs:
                with pytest.raises(httpx.HTTPError):
                    await theirs.request(method, server.url(), content=body)
        script = scripts(secure, refusal)
        with collector_off(), Scripted(script) as server:
            watch = Watch(server.port)
            async with client() as ours:
                response = await ours.request(method, server.url(), content=body)
                assert response.status_code == 200
                assert response.extensions["pinset"].outcome is pinset.Outcome.MATCHED
            assert [(each.method, each.body) for each in requests + script.requests] == [(method, body or b"")]
            # GOAWAY ends a connection, a single refusal does not.
            assert server.connections == (2 if way == "GOAWAY" else 1)
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_refused_twice_is_refused(secure, client, loop):
    """The second refusal is the answer; nobody tries a third time."""

    async def run():
        script = scripts(secure, goaway_below, goaway_below)
        with Scripted(script) as server:
            async with client() as ours:
                with pytest.raises(httpx.RemoteProtocolError):
                    await ours.get(server.url())
                assert not script.requests
                assert server.connections == 2
                assert (await ours.get(server.url())).status_code == 200
        # A server that accepts by GOAWAY what it refuses by RST_STREAM has processed nothing, however often it says so.
        with Scripted(scripts(secure, *[accept_and_refuse] * 20)) as server:
            async with client() as ours:
                with pytest.raises(httpx.RemoteProtocolError):
                    await ours.get(server.url())
            assert server.connections == 2
        refused = []

        def refuse_all(http):
            while True:
                refused.append(http.request())
                http.refuse(refused[-1].stream)

        with Scripted(scripts(secure, refuse_all)) as server:
            async with client() as ours:
                with pytest.raises(httpx.RemoteProtocolError):
                    await ours.get(server.url())
                assert len(refused) == 2

    LOOPS[loop](run)


@loops
def test_what_may_have_been_processed_is_never_sent_again(secure, client, loop):
    """A stream at or below the last one of GOAWAY, a connection that breaks, and any other reset are final."""

    def broken(http):
        http.request()
        raise HungUp

    def cancelled(http):
        http.refuse(http.request().stream, code=0x8)

    def internal(http):
        http.refuse(http.request().stream, code=0x2)

    async def run():
        for ending in (goaway_above, broken, cancelled, internal):
            for method in ("GET", "POST"):
                script = scripts(secure, ending)
                with Scripted(script) as server:
                    async with client() as ours:
                        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                            await ours.request(method, server.url())
                        assert server.connections == 1
                        assert not script.requests

    LOOPS[loop](run)


@loops
def test_a_body_that_was_begun_is_not_sent_again(secure, client, loop):
    """A generator cannot be read twice: whoever began it hears of the refusal."""

    def refuse_at_once(http):
        while True:
            http.refuse(http.request(whole=False).stream)

    async def run():
        read = []

        async def generate():
            read.append(1)
            yield b"one"
            await anyio.sleep(0.05)
            yield b"two"

        for refusal in (refuse_at_once, goaway_below):
            script = scripts(secure, refusal)
            with Scripted(script) as server:
                async with client() as ours:
                    with pytest.raises(httpx.RemoteProtocolError):
                        await ours.post(server.url(), content=generate())
                assert not script.requests
                assert read == [1]
            read.clear()

    LOOPS[loop](run)


@loops
def test_a_body_that_was_not_begun_is_sent(secure, client, loop):
    """GOAWAY came with the last answer: the next request, a generator, goes to a fresh connection untouched."""

    async def run():
        begun = []

        async def generate():
            begun.append(1)
            yield b"whole"

        def first(http):
            held = http.request()
            http.goaway(held.stream)
            http.respond(held.stream)

        script = scripts(secure, first)
        with Scripted(script) as server:
            async with client() as ours:
                assert (await ours.get(server.url())).status_code == 200
                response = await ours.post(server.url(), content=generate())
                assert response.content == b"POST whole"
            assert server.connections == 2
            assert begun == [1]

    LOOPS[loop](run)


@loops
def test_goaway_in_two_steps(secure, client, loop):
    """First "no more", then the exact stream: what is at or below it is answered, the rest is sent again."""

    def two_steps(http):
        streams = sorted(http.request().stream for _ in range(6))
        http.goaway(NO_MORE)
        http.goaway(streams[2])
        for stream in streams[:3]:
            http.respond(stream, b"first")

    async def run():
        script = scripts(secure, two_steps)
        with collector_off(), Scripted(script) as server:
            watch = Watch(server.port)
            answers = []
            async with client() as ours:

                async def get(number):
                    answers.append((await ours.get(server.url(f"/{number}"))).content)

                async with anyio.create_task_group() as group:
                    for number in range(6):
                        group.start_soon(get, number)
                await wait_for(lambda: server.open == 1, "the drained connection to be closed")
                assert counts(ours._transport) == (0, 0, 1, 0)
            assert sorted(answers) == [b"GET "] * 3 + [b"first"] * 3
            assert len(script.requests) == 3
            assert server.connections == 2
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_a_draining_connection_finishes_and_closes(secure, client, loop):
    """After GOAWAY the open stream is read to its end, the next request goes elsewhere, and then it is closed."""

    async def run():
        turn = threading.Event()

        def draining(http):
            one = http.request()
            http.begin(one.stream)
            http.goaway(one.stream)
            http.data(one.stream, b"part ")
            turn.wait(PATIENCE)
            http.data(one.stream, b"end", end=True)

        script = scripts(secure, draining)
        with collector_off(), Scripted(script) as server:
            watch = Watch(server.port)
            async with client() as ours:
                async with ours.stream("GET", server.url("/slow")) as slow:
                    assert slow.status_code == 200
                    assert (await ours.get(server.url("/next"))).content == b"GET "
                    assert server.connections == 2
                    assert counts(ours._transport) == (0, 1, 1, 0)
                    assert server.open == 2
                    turn.set()
                    body = await slow.aread()
                    assert body.startswith(b"part ")
                    assert body.endswith(b"end")
                await wait_for(lambda: server.open == 1, "the drained connection to be closed")
                assert counts(ours._transport) == (0, 0, 1, 0)
                assert (await ours.get(server.url("/next"))).content == b"GET "
            assert server.connections == 2
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@loops
def test_goaway_on_an_idle_connection(secure, client, loop):
    """It lies there unread; the next request meets it and goes out on a fresh connection."""

    async def run():
        for method in ("GET", "POST"):
            said = threading.Event()

            def idle(http, said=said):
                http.respond(http.request().stream)
                http.goaway(1)
                said.set()

            script = scripts(secure, idle)
            with Scripted(script) as server:
                async with client() as ours:
                    assert (await ours.get(server.url())).status_code == 200
                    await wait_for(said.is_set, "GOAWAY")
                    response = await ours.request(method, server.url(), content=b"body" if method == "POST" else None)
                    assert response.content == (b"POST body" if method == "POST" else b"GET ")
                assert server.connections == 2

    LOOPS[loop](run)


FRAME = 9 + 8 + len(b"later")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("cut", range(1, FRAME))
def test_goaway_cut_at_every_byte(secure, client, loop, cut):
    """GOAWAY that comes in two pieces, the second one stuck to the answer that it concerns."""

    def pieces(http):
        one, two = (http.request().stream for _ in range(2))
        http.goaway(min(one, two), sizes=(cut,))
        http.respond(min(one, two), b"first")

    async def run():
        script = scripts(secure, pieces)
        with Scripted(script) as server:
            answers = []
            async with client() as ours:

                async def get(number):
                    answers.append((await ours.get(server.url(f"/{number}"))).content)

                async with anyio.create_task_group() as group:
                    for number in range(2):
                        group.start_soon(get, number)
            assert sorted(answers) == [b"GET ", b"first"]
            assert server.connections == 2

    LOOPS[loop](run)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_goaway_byte_by_byte(secure, client, loop):
    """Every byte of it in a record of its own, between the parts of a body."""

    def dribble(http):
        one, _ = sorted(http.request().stream for _ in range(2))
        http.begin(one)
        http.data(one, b"before ")
        http.goaway(one, sizes=range(1, FRAME))
        http.data(one, b"after", end=True)

    async def run():
        with Scripted(scripts(secure, dribble)) as server:
            answers = []
            async with client() as ours:

                async def get(number):
                    answers.append((await ours.get(server.url(f"/{number}"))).content)

                async with anyio.create_task_group() as group:
                    for number in range(2):
                        group.start_soon(get, number)
            assert sorted(answers) == [b"GET ", b"before after"]

    LOOPS[loop](run)


@loops
def test_the_retry_is_pinned(secure, client, impostor, rogue, genuine, pins, loop):
    """The fresh connection is judged like any other: a server that changed its key meanwhile is refused."""
    other = impostor.server_context(alpn=("h2",))

    def script(peer):
        peer.wrap(secure if peer.number == 0 else other)
        goaway_below(HTTP2(peer))

    async def run():
        with Scripted(script) as server:
            transport = pinset.PinnedAsyncTransport(pins, verify=genuine.client_context(rogue), http2=True)
            async with httpx.AsyncClient(transport=transport, timeout=20) as ours:
                with pytest.raises(pinset.PinMismatchError):
                    await ours.get(server.url())
            assert server.connections == 2
            assert server.peers[1].received == b""

    LOOPS[loop](run)


@loops
def test_at_one_connection_the_retry_waits_for_its_place(secure, client, loop):
    """max_connections=1: the refusing connection is closed before the fresh one is opened."""

    def refuse_some(http):
        http.refuse(http.request().stream)
        while True:
            http.respond(http.request().stream)

    async def run():
        for refusal in (goaway_below, refuse_some):
            script = scripts(secure, refusal)
            with Scripted(script) as server:
                async with client(limits=httpx.Limits(max_connections=1)) as ours:
                    answers = []

                    async def get(ours=ours, server=server, answers=answers):
                        answers.append((await ours.get(server.url())).status_code)

                    async with anyio.create_task_group() as group:
                        for _ in range(5):
                            group.start_soon(get)
                    assert answers == [200] * 5

    LOOPS[loop](run)


def test_the_scripted_server_is_a_real_one(secure, client, leaf):
    """Without a refusal the same server answers, over HTTP/2 and one connection."""

    async def run():
        script = scripts(secure, settings={STREAMS: 10})
        with Scripted(script) as server:
            async with client() as ours:
                for _ in range(3):
                    response = await ours.get(server.url())
                    assert response.http_version == "HTTP/2"
                    assert response.request.url.host == HOST
            assert server.connections == 1

    LOOPS["asyncio"](run)
