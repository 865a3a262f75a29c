"""
A new policy is in force for the next request: kept connections that it refuses carry none, and none in flight is cut.
"""

from __future__ import annotations

import datetime as dt
import threading

import anyio
import httpx
import pytest
from conftest import BACKUP, HOST
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import HTTP2, PATIENCE, Scripted, wait_for

import pinset
from pinset import OnExpiry, PinMismatchError, Pinner, PinSet, Policy
from pinset.testing import Identity, TLSServer

loops = pytest.mark.parametrize("loop", LOOPS)
protocols = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
BLOCK = "/block"


@pytest.fixture(scope="session")
def renewed(genuine) -> Identity:
    """The identity of the server after its key was changed."""
    return genuine.issue(HOST)


class Site:
    """
    A server of one host whose key can be changed.

    Attributes:
        requests: By connection, the paths that were asked for.
        go: Lets the answer to a request for ``/block`` end.
    """

    def __init__(self, identity, *, http2):
        self._http2 = http2
        self.use(identity)
        self.requests = {}
        self.bodies = {}
        self.go = threading.Event()

    def use(self, identity):
        """Shake hands with *identity* from now on."""
        self._context = identity.server_context(alpn=("h2",) if self._http2 else ("http/1.1",))

    def __call__(self, peer):
        peer.wrap(self._context)
        (self._serve_http2 if self._http2 else self._serve_http1)(peer)

    def _note(self, peer, path):
        self.requests.setdefault(peer.number, []).append(path)

    def _serve_http1(self, peer):
        while True:
            head = peer.head()
            path = head.split()[1].decode()
            self._note(peer, path)
            if path == BLOCK:
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                self.go.wait(PATIENCE)
                peer.send(b" done")
                continue
            if b"transfer-encoding: chunked" in head.lower():
                self._read_chunks(peer)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def _read_chunks(self, peer):
        while not peer.received.endswith(b"0\r\n\r\n"):
            peer.receive()
        self.bodies[peer.number] = peer.received

    def _serve_http2(self, peer):
        http = HTTP2(peer)
        held = []
        while True:
            request = http.request()
            self._note(peer, request.path)
            self.bodies[peer.number] = request.body
            if request.path == BLOCK:
                http.begin(request.stream)
                http.data(request.stream, b"half")
                held.append(request.stream)
                threading.Thread(target=self._finish, args=(http, request.stream), daemon=True).start()
            else:
                http.respond(request.stream, b"ok")

    def _finish(self, http, stream):
        self.go.wait(PATIENCE)
        http.data(stream, b" done", end=True)


def client_for(pinner, genuine, *, http2, **options):
    """A client under *pinner*."""
    transport = pinset.PinnedAsyncTransport(
        pinner, verify=genuine.client_context(), http2=http2, limits=httpx.Limits(**options)
    )
    return httpx.AsyncClient(transport=transport, timeout=20)


def policy(identity):
    """Pins for *identity*."""
    return {HOST: [identity.pin, BACKUP]}


@protocols
@loops
def test_a_rotated_key(leaf, renewed, genuine, loop, http2):
    """The server has another key and the policy follows: the next request goes out on a fresh connection, and is answered."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with collector_off(), Scripted(site) as server:
            watch = Watch(server.port)
            async with client_for(pinner, genuine, http2=http2) as client:
                for _ in range(2):
                    assert (await client.get(server.url("/old"))).status_code == 200
                assert server.connections == 1
                site.use(renewed)
                pinner.replace(policy(renewed))
                response = await client.get(server.url("/new"))
                assert response.status_code == 200
                assert list(map(str, response.extensions["pinset"].matched)) == [renewed.pin]
                await wait_for(lambda: server.open == 1, "the old connection to be closed")
                assert counts(client._transport) == (0, 0, 1, 0)
            assert site.requests == {0: ["/old", "/old"], 1: ["/new"]}
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@protocols
@loops
def test_a_key_that_did_not_follow(leaf, renewed, genuine, loop, http2):
    """The policy refuses the server as it is: one handshake, and nothing on the old connection or the new one."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2) as client:
                assert (await client.get(server.url("/old"))).status_code == 200
                written = len(server.peers[0].received)
                pinner.replace(policy(renewed))
                with pytest.raises(PinMismatchError):
                    await client.get(server.url("/new"))
                await wait_for(lambda: server.open == 0, "both connections to be closed")
                assert server.connections == 2
                assert server.peers[1].received == b""
                assert b"new" not in server.peers[0].received
                assert http2 or len(server.peers[0].received) == written
                pinner.replace(policy(leaf))
                assert (await client.get(server.url("/again"))).status_code == 200
            assert site.requests == {0: ["/old"], 2: ["/again"]}

    LOOPS[loop](run)


@protocols
@loops
def test_a_policy_that_still_matches(leaf, renewed, genuine, loop, http2):
    """The connection is kept, and its verdict is that of the new policy."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2) as client:
                first = await client.get(server.url("/"))
                pinner.replace({HOST: [renewed.pin, leaf.pin]})
                second = await client.get(server.url("/"))
            assert server.connections == 1
            assert second.extensions["pinset"].rule is pinner.policy.find(HOST)
            assert first.extensions["pinset"].rule is not second.extensions["pinset"].rule

    LOOPS[loop](run)


@protocols
@loops
def test_a_download_in_flight_finishes(leaf, renewed, genuine, loop, http2):
    """It is read to its end on its own connection, which then closes; the next request is on another."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with collector_off(), Scripted(site) as server:
            watch = Watch(server.port)
            async with client_for(pinner, genuine, http2=http2) as client:
                async with client.stream("GET", server.url(BLOCK)) as slow:
                    site.use(renewed)
                    pinner.replace(policy(renewed))
                    assert (await client.get(server.url("/new"))).status_code == 200
                    site.go.set()
                    assert await slow.aread() == b"half done"
                await wait_for(lambda: server.open == 1, "the old connection to be closed")
                assert (await client.get(server.url("/new"))).status_code == 200
                assert counts(client._transport) == (0, 0, 1, 0)
            assert site.requests == {0: [BLOCK], 1: ["/new", "/new"]}
            await watch.assert_nothing_left()

    LOOPS[loop](run)


@protocols
@loops
def test_an_upload_in_flight_finishes(leaf, renewed, genuine, loop, http2):
    """The rest of its body is written, and it is answered."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2) as client:

                async def body():
                    yield b"before"
                    site.use(renewed)
                    pinner.replace(policy(renewed))
                    # Another request meanwhile, so that the pool has looked at the connection under the new policy.
                    assert (await client.get(server.url("/new"))).status_code == 200
                    yield b"after"

                response = await client.post(server.url("/upload"), content=body())
                assert response.status_code == 200
                assert b"before" in site.bodies[0]
                assert b"after" in site.bodies[0]
                await wait_for(lambda: server.open == 1, "the old connection to be closed")
            assert site.requests == {0: ["/upload"], 1: ["/new"]}

    LOOPS[loop](run)


@protocols
@loops
def test_a_request_in_the_queue(leaf, renewed, genuine, loop, http2):
    """It began to wait under the old policy; when its turn comes, the connection is no longer good enough."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2, max_connections=1) as client:
                answers = []

                async def get():
                    answers.append((await client.get(server.url("/queued"))).status_code)

                async with anyio.create_task_group() as group:
                    async with client.stream("GET", server.url(BLOCK)) as slow:
                        site.use(renewed)
                        pinner.replace(policy(renewed))
                        group.start_soon(get)
                        await wait_for(lambda: counts(client._transport)[0] == 1, "a request in the queue")
                        site.go.set()
                        await slow.aread()
                assert answers == [200]
            assert site.requests == {0: [BLOCK], 1: ["/queued"]}

    LOOPS[loop](run)


@protocols
@loops
def test_replaced_between_handshake_and_request(leaf, renewed, genuine, loop, http2):
    """An observer of the handshake puts another policy in force: the request is not written under the old verdict."""

    async def run():
        site = Site(leaf, http2=http2)

        def observe(verdict):
            if pinner.generation == 1:
                site.use(renewed)
                pinner.replace(policy(renewed))

        pinner = Pinner(policy(leaf), observers=[observe])
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2, max_connections=1) as client:
                assert (await client.get(server.url("/only"))).status_code == 200
            assert site.requests == {1: ["/only"]}

    LOOPS[loop](run)


@protocols
@loops
def test_replaced_between_the_turn_and_the_request(leaf, renewed, genuine, loop, http2):
    """A waiting request has been given the connection and not yet run when the policy is replaced."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2, max_connections=1) as client:
                answers = []

                async def get():
                    answers.append((await client.get(server.url("/queued"))).status_code)

                async with anyio.create_task_group() as group:
                    async with client.stream("GET", server.url("/first")) as first:
                        if http2:  # the connection is shared, so the queue is empty; take the next one's turn away
                            site.use(renewed)
                            pinner.replace(policy(renewed))
                        group.start_soon(get)
                        await wait_for(lambda: counts(client._transport)[0] == 1, "a request in the queue")
                        await first.aread()
                    site.use(renewed)
                    pinner.replace(policy(renewed))
                assert answers == [200]
            assert site.requests == {0: ["/first"], 1: ["/queued"]}

    LOOPS[loop](run)


@protocols
@loops
def test_the_end_of_a_pin_set(leaf, genuine, loop, http2):
    """Its expiry passes while a connection is idle: with ``block`` it carries nothing more."""
    now = [dt.datetime.now(dt.UTC)]
    expires = now[0] + dt.timedelta(days=1)
    pins = PinSet(name=HOST, pins=[leaf.pin, BACKUP], expires=expires, on_expiry=OnExpiry.BLOCK)

    async def run():
        now[0] = expires - dt.timedelta(days=1)
        site = Site(leaf, http2=http2)
        pinner = Pinner(Policy([pins]), clock=lambda: now[0])
        with Scripted(site) as server:
            async with client_for(pinner, genuine, http2=http2) as client:
                for _ in range(2):
                    assert (await client.get(server.url("/before"))).status_code == 200
                now[0] = expires
                with pytest.raises(PinMismatchError):
                    await client.get(server.url("/after"))
            assert server.connections == 2
            assert site.requests == {0: ["/before", "/before"]}

    LOOPS[loop](run)


@protocols
def test_replace_from_another_thread(leaf, renewed, genuine, http2):
    """Policies change under load: whatever is answered came from a server that the policy of that moment accepts."""

    async def run():
        site = Site(leaf, http2=http2)
        pinner = Pinner(policy(leaf))
        ended = threading.Event()

        def change():
            while not ended.is_set():
                pinner.replace(policy(leaf))
                pinner.replace({HOST: [BACKUP, leaf.pin]})

        thread = threading.Thread(target=change)
        thread.start()
        try:
            with Scripted(site) as server:
                async with client_for(pinner, genuine, http2=http2) as client:
                    for _ in range(200):
                        assert (await client.get(server.url("/"))).status_code == 200
                assert server.connections == 1
        finally:
            ended.set()
            thread.join()

    LOOPS["asyncio"](run)


@loops
def test_a_policy_that_never_rests(loop, leaf, impostor, genuine) -> None:
    """One that refuses every connection between its handshake and its request: ten handshakes, and an error."""
    good, bad = ({HOST: [identity.pin, BACKUP]} for identity in (leaf, impostor))
    pinner = Pinner(good, observers=[lambda _: pinner.replace(bad)])

    async def trace(name, _):
        if name == "connection.start_tls.started":
            pinner.replace(good)

    async def run():
        with TLSServer(leaf.server_context()) as server:
            async with pinset.PinnedAsyncClient(pinner, verify=genuine.client_context()) as client:
                with pytest.raises(httpx.ConnectError, match="10 connections in a row"):
                    await client.get(server.url(), extensions={"trace": trace})
                assert counts(client._transport) == (0, 0, 0, 0)
            assert server.seen.connections == 10
            assert server.seen.application_data == b""

    with collector_off():
        LOOPS[loop](run)
