"""
The throw-away server: keys, versions, HTTP/2, client certificates, rotation, and hostile chains.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_der_x509_certificate

import pinset
from pinset import Outcome, PinMismatchError, PinnedAsyncClient, Pinner, PinSet, Policy
from pinset._certificates import read_certificate
from pinset.testing import Authority, FrozenClock, HTTPSServer, RecordingObserver, hostile_chains
from pytest_pinset import HOSTILE_CHAINS

OTHER = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def pinned(server, *others, **options):
    """A client with the server's pins, that trusts it and *others*."""
    return PinnedAsyncClient(server.pins, verify=server.client_context(*others), trust_env=False, **options)


@pytest.mark.asyncio
@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
@pytest.mark.parametrize("key", ["ec", "rsa"])
async def test_kinds(key, tls, http2):
    """Every kind of key, version of TLS and of HTTP, with a chain of leaf, intermediate and root."""
    with HTTPSServer(key=key, tls=tls, http2=http2) as server:
        async with pinned(server, http2=http2) as client:
            response = await client.post(server.url(path="/x"), content=b"abc")
            connection = response.extensions["network_stream"].get_extra_info("ssl_object")
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert connection.version() == f"TLSv{tls}"
    assert response.text.startswith("hello from POST /x")
    verdict = response.extensions["pinset"]
    assert [str(pin) for pin in verdict.matched] == [server.in_service.pin]
    keys = [load_der_x509_certificate(one.der).public_key() for one in verdict.chain]
    assert len(keys) == 3
    assert all(isinstance(each, RSAPublicKey if key == "rsa" else EllipticCurvePublicKey) for each in keys)
    assert server.seen.bodies == [b"abc"]
    assert server.seen.requests[0].lower().count(b"host: localhost:") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("http2", [False, True])
async def test_large_bodies(http2):
    """Bodies larger than a window of HTTP/2 go both ways; so do bodies of unknown length."""
    body = bytes(range(256)) * 2048

    async def pieces():
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    def respond(head):
        return b"HTTP/1.1 201 Created\r\nX-Head: %d\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n%b" % (
            len(head),
            len(body),
            body,
        )

    with HTTPSServer(http2=http2, respond=respond) as server:
        async with pinned(server, http2=http2) as client:
            for content in (body, pieces()):
                response = await client.post(server.url(), content=content)
                assert (response.status_code, response.content) == (201, body)
                assert response.headers["x-head"] == str(len(server.seen.requests[-1]))
    assert server.seen.bodies[0] == body
    assert len(server.seen.bodies[1]) >= len(body)
    assert server.seen.connections == 1


@pytest.mark.asyncio
async def test_upload_that_is_given_up():
    """A stream that is reset leaves the others alone."""

    async def never_ends():
        yield b"x"
        raise RuntimeError("the app changed its mind")

    with HTTPSServer(http2=True) as server:
        async with pinned(server, http2=True) as client:
            await client.get(server.url())
            with pytest.raises(RuntimeError, match="changed its mind"):
                await client.post(server.url(), content=never_ends())
            assert (await client.get(server.url())).status_code == 200
        assert len(server.seen.requests) == 2


def test_nonsense_in_http2():
    """What is no HTTP/2 ends the connection."""
    with HTTPSServer(http2=True) as server:
        context = server.client_context()
        context.set_alpn_protocols(["h2"])
        import socket

        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(b"GET / HTTP/1.1\r\n\r\n" * 3)
                while tls.recv(4096):
                    pass
    assert server.seen.requests == []


@pytest.mark.asyncio
async def test_client_certificates():
    """It insists on a certificate of its own authority, and sees which."""
    with HTTPSServer(client_certificates=True, tls="1.2") as server:
        async with pinned(server) as client:
            assert (await client.get(server.url())).status_code == 200
        bare = server.authority.client_context()
        async with PinnedAsyncClient(server.pins, verify=bare, trust_env=False) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(server.url())
    assert server.seen.client_certificates == [server.client.chain[0]]


@pytest.mark.asyncio
@pytest.mark.parametrize("hang_up", [True, False])
async def test_rotation(hang_up):
    """The backup goes into service under a client that knows it; one that does not is refused."""
    with HTTPSServer() as server:
        first, second = server.in_service, server.backup
        async with (
            pinned(server) as client,
            PinnedAsyncClient(
                {"localhost": [first.pin, OTHER]}, verify=server.client_context(), trust_env=False
            ) as forgetful,
        ):
            for each in (client, forgetful):
                assert str((await each.get(server.url())).extensions["pinset"].matched[0]) == first.pin
            server.rotate(hang_up=hang_up)
            assert server.pins["localhost"][0] == second.pin
            assert server.pins["localhost"][1] not in (first.pin, second.pin)
            matched = (await client.get(server.url())).extensions["pinset"].matched
            assert str(matched[0]) == (second.pin if hang_up else first.pin)
            if hang_up:
                with pytest.raises(PinMismatchError):
                    await forgetful.get(server.url())


def test_names():
    """It answers to the names it is given, and its URLs use the first."""
    with HTTPSServer("a.test", "b.test") as server:
        assert server.url() == f"https://a.test:{server.port}/"
        assert server.url("b.test", "/x") == f"https://b.test:{server.port}/x"
        assert set(server.pins) == {"a.test", "b.test"}


def test_hostile_chains_are_those_of_the_plugin(genuine, rogue, leaf):
    """The fixture knows their names without importing them."""
    chains = hostile_chains(genuine, rogue, leaf, ["localhost"])
    assert tuple(chain.name for chain in chains) == HOSTILE_CHAINS
    assert all(chain.why for chain in chains)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(len(HOSTILE_CHAINS)), ids=HOSTILE_CHAINS)
async def test_hostile_chains(genuine, rogue, number):
    """Each does to stock httpx what it says, and is refused under pins before anything is sent."""
    with HTTPSServer(authority=genuine) as server:
        chain = hostile_chains(genuine, rogue, server.in_service, server.hosts)[number]
        has_pin = chain.identity.pin == server.in_service.pin
        assert has_pin is not chain.verifies or chain.name == "forged"
        server.show(chain.identity)
        async with httpx.AsyncClient(verify=server.client_context(rogue), trust_env=False) as stock:
            if chain.verifies:
                assert (await stock.get(server.url())).status_code == 200
            else:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await stock.get(server.url())
        seen = server.seen.application_data
        async with pinned(server, rogue) as client:
            expected = PinMismatchError if chain.verifies else httpx.ConnectError
            with pytest.raises(expected):
                await client.get(server.url())
    assert server.seen.application_data == seen


@pytest.mark.asyncio
async def test_the_cross_signed_road(genuine, rogue):
    """Who trusts the genuine root alone verifies the rogue's chain up to it: only a pin of the leaf tells."""
    with HTTPSServer(authority=genuine) as server:
        chains = hostile_chains(genuine, rogue, server.in_service, server.hosts)
        server.show(next(chain for chain in chains if chain.name == "cross-signed").identity)
        root = str(pinset.Pin.from_certificate(genuine.root))
        async with PinnedAsyncClient(
            {"localhost": [root, OTHER]}, verify=server.client_context(), trust_env=False
        ) as by_root:
            assert (await by_root.get(server.url())).status_code == 200
        async with pinned(server) as by_leaf:
            with pytest.raises(PinMismatchError):
                await by_leaf.get(server.url())


@pytest.mark.asyncio
async def test_clock_and_observer():
    """A pin set expires when the clock says so, and the observer has every verdict."""
    clock, observer = FrozenClock(), RecordingObserver()
    with HTTPSServer() as server:
        pin_set = PinSet(
            name="localhost",
            pins=server.pins["localhost"],
            expires=clock() + timedelta(days=1),
            on_expiry="block",
        )
        pinner = Pinner(Policy((pin_set,)), observers=[observer], clock=clock)
        async with PinnedAsyncClient(pinner, verify=server.client_context(), trust_env=False) as client:
            await client.get(server.url())
            clock.advance(timedelta(days=1))
            with pytest.raises(PinMismatchError):
                await client.get(server.url())
    assert set(observer.outcomes("localhost")) == {Outcome.MATCHED}
    assert observer.verdicts[0].enforced
    assert observer.verdicts[-1].blocked_by_expiry
    assert observer.outcomes("elsewhere.test") == []
    observer.clear()
    assert observer.outcomes() == []


def test_clock_stands():
    """It moves when it is told to, and takes no instant without a zone."""
    clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
    assert clock() == clock() == clock.now == datetime(2026, 1, 1, tzinfo=UTC)
    clock.now = datetime(2027, 1, 1, tzinfo=UTC)
    assert clock().year == 2027
    with pytest.raises(ValueError, match="no time zone"):
        clock.now = datetime(2027, 1, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        FrozenClock(datetime(2027, 1, 1))  # noqa: DTZ001


def test_an_authority_of_days():
    """A throw-away authority can be short-lived, and so are the certificates below it."""
    authority = Authority(days=2)
    chain = [read_certificate(der) for der in (*authority.issue("a.test").chain, authority.root)]
    assert max(one.not_after for one in chain) < datetime.now(UTC) + timedelta(days=2, minutes=1)
    assert ssl.create_default_context(cadata=authority.root_pem).get_ca_certs()
