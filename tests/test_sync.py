"""
The blocking client and transport: the same rules, in threads.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import itertools
import os
import random
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import BACKUP, HOST, wire
from leftovers import client_sockets, counts
from scripted import HTTP2, Scripted, serve_http2

import pinset.httpx
from pinset import (
    CleartextError,
    ContextError,
    Outcome,
    PinMismatchError,
    PinnedClient,
    PinnedTransport,
    Pinner,
    PinSet,
    Policy,
    UnlistedHostError,
)
from pinset.testing import Authority, Identity, Interceptor, TLSServer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def trust(genuine: Authority, rogue: Authority) -> ssl.SSLContext:
    """A fresh context of a client that trusts the genuine and the rogue authority."""
    return genuine.client_context(rogue)


@pytest.fixture
def server(leaf: Identity) -> Iterator[TLSServer]:
    """The genuine server."""
    with TLSServer(leaf.server_context()) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No socket of a client stays, and none is left to the collector."""
    before = client_sockets()
    gc.collect()
    gc.disable()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
            for _ in range(500):
                if not (client_sockets() - before):
                    break
                time.sleep(0.01)
            gc.collect()
    finally:
        gc.enable()
    assert not client_sockets() - before
    assert not [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]


@contextlib.contextmanager
def slow_server(identity: Identity) -> Iterator[tuple[TLSServer, threading.Event]]:
    """A server that answers once the event is set."""
    release = threading.Event()

    def respond(_: bytes) -> bytes:
        release.wait(20)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    with TLSServer(identity.server_context(), respond=respond) as running:
        try:
            yield running, release
        finally:
            release.set()


def eventually(condition) -> bool:
    """Whether *condition* comes true within ten seconds."""
    for _ in range(1_000):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("tls", VERSIONS)
def test_right_and_wrong_pin(tls, pins, leaf, impostor, trust) -> None:
    """Stock httpx tells the impostor everything; ours sends it one ClientHello. The right server answers, with a verdict."""
    with TLSServer(impostor.server_context(tls=tls)) as attacker:
        with httpx.Client(verify=trust) as stock:
            assert stock.get(attacker.url(), headers={"authorization": "s3cret"}).status_code == 200
        assert b"s3cret" in attacker.seen.application_data
        before = len(attacker.seen.application_data)
        with wire(attacker.port) as relay, PinnedClient(pins, verify=trust) as client:
            with pytest.raises(PinMismatchError) as caught:
                client.get(f"https://{HOST}:{relay.port}/", headers={"authorization": "s3cret"})
        assert relay.records() == [22]  # one handshake record: the ClientHello
        assert relay.connections == 1
        assert len(attacker.seen.application_data) == before
    assert isinstance(caught.value, pinset.httpx.PinMismatchError)
    assert isinstance(caught.value, httpx.TransportError)
    assert caught.value.request.url.host == HOST
    with TLSServer(leaf.server_context(tls=tls)) as server, PinnedClient(pins, verify=trust) as client:
        response = client.get(server.url())
        again = client.get(server.url(path="/again"))
        assert response.extensions["pinset"].outcome is Outcome.MATCHED
        assert again.text == "hello from GET /again HTTP/1.1"
        assert server.seen.connections == 1


@pytest.mark.parametrize("tls", VERSIONS)
def test_client_certificate_stays_at_home(tls, genuine, rogue, leaf, impostor, pins) -> None:
    """Stock httpx shows its certificate to the impostor, as any blocking TLS socket; ours sends a ClientHello."""
    own = genuine.issue("client.test", client=True)

    def asking(identity: Identity) -> TLSServer:
        context = identity.server_context(tls=tls)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=genuine.root_pem)
        return TLSServer(context)

    def trusting() -> ssl.SSLContext:
        made = genuine.client_context(rogue)
        own.load_into(made)
        return made

    with asking(impostor) as attacker:
        with httpx.Client(verify=trusting()) as stock:
            stock.get(attacker.url())
        assert attacker.seen.client_certificates == [own.chain[0]]
        with wire(attacker.port) as relay, PinnedClient(pins, verify=trusting()) as client:
            with pytest.raises(PinMismatchError):
                client.get(f"https://{HOST}:{relay.port}/")
        assert relay.records() == [22]
        assert attacker.seen.client_certificates == [own.chain[0]]
    with asking(leaf) as server:
        with PinnedClient(pins, verify=trusting()) as client:
            client.get(server.url())
        assert server.seen.client_certificates == [own.chain[0]]


def test_retries_do_not_retry_a_refusal(pins, impostor, trust) -> None:
    """A pin failure is final: one handshake, whatever ``retries`` says."""
    with TLSServer(impostor.server_context()) as attacker:
        with httpx.Client(transport=PinnedTransport(pins, verify=trust, retries=5)) as client:
            with pytest.raises(PinMismatchError):
                client.get(attacker.url())
        assert attacker.seen.connections == 1


def test_interceptor(pins, leaf, genuine, rogue, trust, server) -> None:
    """A proxy that the client trusts reads what stock httpx says; to ours it is refused, and its place in the pool is free."""
    with Interceptor(rogue, upstream=genuine.client_context()) as proxy:
        with httpx.Client(verify=trust, proxy=proxy.url) as stock:
            stock.get(server.url(), headers={"authorization": "s3cret"})
        assert b"s3cret" in proxy.intercepted[HOST]
        limits = httpx.Limits(max_connections=1)
        with PinnedClient(pins, verify=trust, proxy=proxy.url, limits=limits, timeout=5) as client:
            for _ in range(3):
                with pytest.raises(PinMismatchError):
                    client.get(server.url())


def test_environment_proxies_are_pinned(pins, genuine, rogue, trust, server, monkeypatch) -> None:
    """What the environment says about proxies holds, and so do the pins."""
    with Interceptor(rogue, upstream=genuine.client_context()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with PinnedClient(pins, verify=trust) as client, pytest.raises(PinMismatchError):
            client.get(server.url())
        assert not proxy.intercepted.get(HOST)


def test_rules_without_a_handshake(pins, trust, server) -> None:
    """Cleartext, unlisted hosts, roads without pins: refused before anything is connected."""
    with PinnedClient(pins, verify=trust) as client:
        with pytest.raises(CleartextError):
            client.get(f"http://{HOST}:{server.port}/")
        with pytest.raises(UnlistedHostError):
            client.get(f"https://127.0.0.1:{server.port}/")
    assert server.seen.connections == 0
    with pytest.raises(ContextError, match="a road without pins"):
        PinnedClient(pins, mounts={"all://": httpx.HTTPTransport()})
    with pytest.raises(ContextError, match="transport="):
        PinnedClient(pins, transport=httpx.HTTPTransport())
    with PinnedClient(pins, mounts={"all://": PinnedTransport(pins)}):
        pass


def test_new_policy_retires_the_connection(leaf, impostor, trust, server) -> None:
    """What a replaced policy no longer accepts is not used again; the request goes out on a fresh connection."""
    pinner = Pinner({HOST: [leaf.pin, BACKUP]})
    with PinnedClient(pinner, verify=trust) as client:
        client.get(server.url())
        pinner.replace(Policy([PinSet(name=HOST, leaf_pins=[leaf.pin, BACKUP])]))
        client.get(server.url())
        assert server.seen.connections == 1
        pinner.replace(Policy([PinSet(name=HOST, pins=[impostor.pin, BACKUP])]))
        with pytest.raises(PinMismatchError):
            client.get(server.url())
        assert server.seen.requests[2:] == []


@pytest.mark.parametrize("tls", VERSIONS)
def test_resumption(tls, pins, leaf, trust) -> None:
    """A session is resumed, and judged by the chain that earned it."""
    with TLSServer(leaf.server_context(tls=tls)) as server, PinnedClient(pins, verify=trust) as client:
        close = {"connection": "close"}

        def reused() -> bool:
            with client.stream("GET", server.url(), headers=close) as response:
                tls = response.extensions["network_stream"].get_extra_info("ssl_object")
                assert response.extensions["pinset"].outcome is Outcome.MATCHED
                response.read()
            return tls.session_reused

        assert [reused() for _ in range(3)] == [False, True, True]


def test_unix_socket(pins, trust, leaf) -> None:
    """TLS over a Unix socket, pinned to the host of the URL."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(directory, "socket"))
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection, leaf.server_context().wrap_socket(connection, server_side=True) as tls:
                    tls.recv(65536)
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

        thread = threading.Thread(target=serve)
        thread.start()
        with httpx.Client(transport=PinnedTransport(pins, verify=trust, uds=path)) as client:
            assert client.get(f"https://{HOST}/").text == "ok"
        thread.join()
        with httpx.Client(transport=PinnedTransport(pins, verify=trust, uds=path + "2")) as client:
            with pytest.raises(httpx.ConnectError):
                client.get(f"https://{HOST}/")


class TestStreams:
    """Bodies of any size, both ways, within their time."""

    def test_large_bodies(self, pins, leaf, trust) -> None:
        """Eight megabytes up, from a generator, and eight down."""
        size = 8 * 1024 * 1024

        def respond(head: bytes) -> bytes:
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size

        with TLSServer(leaf.server_context(), respond=respond) as server, PinnedClient(pins, verify=trust) as client:
            with client.stream("GET", server.url()) as response:
                assert sum(map(len, response.iter_raw())) == size
        with drain_server(leaf) as (port, taken), PinnedClient(pins, verify=trust) as client:
            body = itertools.repeat(b"x" * 65_536, size // 65_536)
            assert client.post(f"https://{HOST}:{port}/", content=body).status_code == 200
            assert taken() >= size

    def test_timeouts(self, pins, leaf, trust) -> None:
        """Connecting, reading, writing and waiting for a place: each has its limit and its error."""
        with socket.create_server((HOST, 0)) as silent, PinnedClient(pins, verify=trust) as client:
            with pytest.raises(httpx.ConnectTimeout):  # the handshake belongs to connecting
                client.get(f"https://{HOST}:{silent.getsockname()[1]}/", timeout=0.1)
        with slow_server(leaf) as (server, _):
            limits = httpx.Limits(max_connections=1)
            with PinnedClient(pins, verify=trust, limits=limits) as client:
                with pytest.raises(httpx.ReadTimeout):
                    client.get(server.url(), timeout=httpx.Timeout(5, read=0.1))
                with ThreadPoolExecutor(1) as pool:
                    busy = pool.submit(client.get, server.url(), timeout=20)
                    assert eventually(lambda: counts(client._transport)[1] == 1 and len(server.seen.requests) == 2)
                    with pytest.raises(httpx.PoolTimeout):
                        client.get(server.url(), timeout=httpx.Timeout(5, pool=0.1))
                    server._respond = lambda _: b""
                    client.close()
                    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                        busy.result(10)

    def test_write_timeout(self, pins, leaf, trust) -> None:
        """A server that takes nothing."""
        with socket.create_server((HOST, 0)) as listener, PinnedClient(pins, verify=trust) as client:
            stop = threading.Event()

            def serve() -> None:
                connection, _ = listener.accept()
                with connection, leaf.server_context().wrap_socket(connection, server_side=True):
                    stop.wait(20)

            thread = threading.Thread(target=serve)
            thread.start()
            url, body = f"https://{HOST}:{listener.getsockname()[1]}/", itertools.repeat(b"x" * 65_536, 1_000)
            with pytest.raises(httpx.WriteTimeout):
                client.post(url, content=body, timeout=httpx.Timeout(10, write=0.2))
            stop.set()
            thread.join()


@contextlib.contextmanager
def drain_server(identity: Identity):
    """A server that reads a chunked request to its end; its port, and how much it got."""
    taken = 0

    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            nonlocal taken
            connection, _ = listener.accept()
            with connection, identity.server_context().wrap_socket(connection, server_side=True) as tls:
                tail = b""
                while not tail.endswith(b"0\r\n\r\n"):
                    data = tls.recv(65_536)
                    taken += len(data)
                    tail = (tail + data)[-5:]
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], lambda: taken
        thread.join()


class TestThreads:
    """Many threads, one client."""

    def test_one_client_for_many_threads(self, pins, leaf, trust) -> None:
        """Each answer belongs to its question, and the limit of connections holds."""
        with TLSServer(leaf.server_context()) as server:
            limits = httpx.Limits(max_connections=4)
            with PinnedClient(pins, verify=trust, limits=limits, timeout=30) as client, ThreadPoolExecutor(16) as pool:

                def get(number: int) -> bool:
                    return client.get(server.url(path=f"/{number}")).text == f"hello from GET /{number} HTTP/1.1"

                assert all(pool.map(get, range(400)))
                assert counts(client._transport) == (0, 0, counts(client._transport)[2], 0)
            assert server.seen.connections <= 4

    def test_burst_at_an_impostor(self, pins, impostor, trust) -> None:
        """Everybody is refused with an error of their own, and the pool is empty afterwards."""
        with TLSServer(impostor.server_context()) as attacker:
            with PinnedClient(pins, verify=trust, timeout=30) as client, ThreadPoolExecutor(16) as pool:

                def get(_: int) -> BaseException:
                    with pytest.raises(PinMismatchError) as caught:
                        client.get(attacker.url())
                    return caught.value

                errors = list(pool.map(get, range(64)))
                assert len({id(error) for error in errors}) == 64
                assert counts(client._transport) == (0, 0, 0, 0)
            assert attacker.seen.application_data == b""

    def test_storm(self, leaf, impostor, trust) -> None:
        """
        Impatient threads, a slow server that hangs up, a policy that changes: everybody gets an answer or an error.

        Threads take turns as often as they can, so that what one of them sees half-done would show.
        """
        chance = random.Random(7)

        def respond(head: bytes) -> bytes:
            time.sleep(chance.choice([0, 0, 0, 0.02]))
            path, closing = head.split()[1], chance.random() > 0.9
            return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (
                b"Connection: close\r\n" if closing else b"",
                len(path),
                path,
            )

        good, bad = (Policy.from_mapping({HOST: [identity.pin, BACKUP]}) for identity in (leaf, impostor))
        pinner, limits = (
            Pinner(good),
            httpx.Limits(max_connections=4, max_keepalive_connections=2, keepalive_expiry=0.02),
        )
        outcomes = collections.Counter()

        def get(number: int) -> None:
            timeout = httpx.Timeout(
                20,
                pool=chance.choice([0.005, 0.1, 20]),
                read=chance.choice([0.01, 0.1, 20]),
                connect=chance.choice([0.005, 20]),
            )
            if not number % 100:
                pinner.replace(bad)
            elif not number % 10:
                pinner.replace(good)
            try:
                outcomes[client.get(server.url(path=f"/{number}"), timeout=timeout).text == f"/{number}"] += 1
            except (httpx.TimeoutException, PinMismatchError) as error:
                outcomes[type(error).__name__] += 1

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            with TLSServer(leaf.server_context(), respond=respond) as server:
                with PinnedClient(pinner, verify=trust, limits=limits) as client, ThreadPoolExecutor(20) as pool:
                    assert len(list(pool.map(get, range(1_000)))) == 1_000
                    assert outcomes[True] > 100
                    assert outcomes[False] == 0
                    queued, active, _, connecting = counts(client._transport)
                    assert (queued, active, connecting) == (0, 0, 0)
        finally:
            sys.setswitchinterval(before)

    def test_a_connection_falls_to_whoever_is_left(self, pins, leaf, trust) -> None:
        """After a refusal one is made for all that wait, by the thread that asked first; if that is interrupted, by another."""
        transport = PinnedTransport(pins, verify=trust)
        assignment, key = transport._pool._assignment, (b"https", HOST.encode(), 443)
        assignment._suspects[key] = None
        first = assignment.enqueue(key, {})
        second = assignment.enqueue(key, {})
        assert first.flight is second.flight is not None
        assert second.errand() is None
        assert assignment.leave(first) is None
        assert second.errand() is second.flight.task
        # And when nobody is left, it ends without having begun: its slot is free.
        flight = assignment.leave(second)
        assert flight is not None
        flight.task.wait()
        assert counts(transport) == (0, 0, 0, 0)
        transport.close()

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
    def test_interrupt_while_connecting(self, pins, trust) -> None:
        """Ctrl-C reaches who waits for a handshake; socket and slot are free then."""

        class Interrupt(BaseException):
            pass

        def interrupt(*_: object) -> None:
            raise Interrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with socket.create_server((HOST, 0)) as silent, PinnedClient(pins, verify=trust, timeout=20) as client:
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(Interrupt):
                    client.get(f"https://{HOST}:{silent.getsockname()[1]}/")
                assert counts(client._transport) == (0, 0, 0, 0)
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_close_wakes_who_waits(self, pins, leaf, trust) -> None:
        """Another thread closes the client: who waits for a place is told, and who reads gets an error."""
        with slow_server(leaf) as (server, _):
            limits = httpx.Limits(max_connections=1)
            client = PinnedClient(pins, verify=trust, limits=limits, timeout=30)
            with ThreadPoolExecutor(2) as pool:
                reads = pool.submit(client.get, server.url())
                assert eventually(lambda: len(server.seen.requests) == 1)
                waits = pool.submit(client.get, server.url())
                assert eventually(lambda: counts(client._transport)[0] == 1)
                client.close()
                with pytest.raises(httpx.ConnectError, match="closed"):
                    waits.result(10)
                with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                    reads.result(10)


def test_names_and_addresses(pins, trust, server) -> None:
    """A local address is bound; a name without an address, and a port where nobody listens, are connection errors."""
    with httpx.Client(transport=PinnedTransport(pins, verify=trust, local_address="127.0.0.1")) as client:
        assert client.get(server.url()).status_code == 200
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with httpx.Client(transport=PinnedTransport(pins, verify=trust)) as client:
        with pytest.raises(httpx.ConnectError):
            client.get(f"https://{HOST}:{port}/")
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with httpx.Client(transport=PinnedTransport(pins, verify=trust, socket_options=[option])) as client:
        with client.stream("GET", server.url()) as response:
            stream = response.extensions["network_stream"]
            assert stream.get_extra_info("socket").getsockopt(*option[:2])
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
            assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
            assert stream.get_extra_info("nonsense") is None


def test_fork_of_the_file_descriptors(pins, trust, server) -> None:
    """Connections are not inherited by programs that are started."""
    with PinnedClient(pins, verify=trust) as client, client.stream("GET", server.url()) as response:
        raw = response.extensions["network_stream"].get_extra_info("socket")
        assert not os.get_inheritable(raw.fileno())


@pytest.mark.parametrize("http1", [False, True])
def test_http2(http1, pins, leaf, trust) -> None:
    """Requests one after another on one connection, and at the same time on as many as there are."""
    with Scripted(serve_http2(leaf.server_context(alpn=("h2",)))) as server:
        with PinnedClient(pins, verify=trust, http1=http1, http2=True, timeout=20) as client:
            for _ in range(3):
                response = client.post(server.url(), content=b"body")
                assert (response.http_version, response.text) == ("HTTP/2", "hello")
            assert len(server.peers) == 1
            with client.stream("GET", server.url()) as first, client.stream("GET", server.url()) as second:
                assert first.read() == second.read() == b"hello"
            assert len(server.peers) == 2


def test_unprocessed_request_is_sent_again(pins, leaf, trust) -> None:
    """What GOAWAY declares unprocessed goes out once more, on another connection."""

    def script(peer):
        peer.wrap(leaf.server_context(alpn=("h2",)))
        http = HTTP2(peer)
        if peer.number == 0:
            http.request()
            http.goaway(last=0)
            http.finish()
        while True:
            http.respond(http.request().stream)

    with Scripted(script) as server:
        with PinnedClient(pins, verify=trust, http2=True, timeout=20) as client:
            assert client.get(server.url()).text == "hello"
        assert len(server.peers) == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], httpx.ProxyError),
        ([b"\x05\xff"], httpx.ProxyError),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], httpx.ProxyError),
        ([b"\x05"], httpx.ProxyError),
        ([b"\x05\x00", None], httpx.ConnectTimeout),
    ],
    ids=["refused", "no method", "http", "hangs up", "stalls"],
)
def test_socks_proxies_that_do_not_help(words, error, pins, trust) -> None:
    """Each becomes an error of httpx, in time."""

    def script(peer):
        for word in words:
            peer.receive()
            if word is None:
                peer.stall()
            peer.send(word)

    with Scripted(script) as proxy:
        address = proxy.url().split("//")[1].split("/")[0]
        with PinnedClient(pins, verify=trust, proxy=f"socks5://{address}", timeout=0.5) as client:
            with pytest.raises(error):
                client.get(f"https://{HOST}/")
            assert counts(client._transport) == (0, 0, 0, 0)
