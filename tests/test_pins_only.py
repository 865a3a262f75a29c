"""
``trust="pins-only"``: servers with a certificate of their own making, of which nothing but the leaf's key is verified.
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl

import httpx
import pytest
from conftest import BACKUP, HOST, wire

import pinset.httpx
import pinset.httpx2
from pinset import (
    ContextError,
    Mode,
    OnExpiry,
    Outcome,
    PinMismatchError,
    PinnedAsyncClient,
    PinnedClient,
    PinnedTransport,
    Pinner,
    PinSet,
    Policy,
    Unlisted,
    UnverifiedChainError,
    pinned_ssl_context,
)
from pinset.testing import Authority, TLSServer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)


@pytest.fixture(scope="module")
def itself():
    """A server's own certificate, for another name, that nobody trusts."""
    return Authority("Nobody knows", intermediate=False).issue("device.invalid")


@pytest.fixture(scope="module")
def stranger():
    """Another one of the kind."""
    return Authority("Nobody knows", intermediate=False).issue(HOST)


def policy(identity, **options) -> Policy:
    """The leaf pin of *identity*, enforced."""
    return Policy([PinSet(name=HOST, leaf_pins=[identity.pin, BACKUP], **options)])


@pytest.mark.parametrize("tls", VERSIONS)
def test_blocking_client(tls, itself, stranger) -> None:
    """The pinned key answers whatever its certificate says; a stock client refuses it, and without checks takes anybody."""
    with TLSServer(itself.server_context(tls=tls)) as server:
        with httpx.Client() as stock, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            stock.get(server.url())
        with PinnedClient(policy(itself), trust="pins-only") as client:
            for _ in range(3):
                response = client.get(server.url(), headers={"connection": "close"})
                assert response.extensions["pinset"].outcome is Outcome.MATCHED
                assert len(response.extensions["pinset"].chain) == 1
    with TLSServer(stranger.server_context(tls=tls)) as other:
        with httpx.Client(verify=False) as careless:
            assert careless.get(other.url()).status_code == 200
        before = len(other.seen.application_data)
        with wire(other.port) as relay, PinnedClient(policy(itself), trust="pins-only") as client:
            with pytest.raises(PinMismatchError):
                client.get(f"https://{HOST}:{relay.port}/")
        assert relay.records() == [22]
        assert len(other.seen.application_data) == before


@pytest.mark.parametrize("module", [pinset.httpx, pinset.httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("tls", VERSIONS)
@pytest.mark.asyncio
async def test_async_clients(tls, module, itself, stranger) -> None:
    """The same in an event loop."""
    with TLSServer(itself.server_context(tls=tls)) as server, TLSServer(stranger.server_context(tls=tls)) as other:
        async with module.PinnedAsyncClient(policy(itself), trust="pins-only") as client:
            for _ in range(3):  # the later ones resume
                response = await client.get(server.url(), headers={"connection": "close"})
                assert response.extensions["pinset"].outcome is Outcome.MATCHED
            with pytest.raises(module.PinMismatchError):
                await client.get(other.url())
        assert other.seen.application_data == b""


def test_appended_certificate(itself, stranger, genuine) -> None:
    """Whose key the peer has not proven does not count: the pinned certificate behind the peer's own is no match."""
    context = stranger.server_context()
    forged = type(stranger)(stranger.key, (*stranger.chain, itself.chain[0]))
    context = forged.server_context()
    with TLSServer(context) as other, PinnedClient(policy(itself), trust="pins-only") as client:
        with pytest.raises(PinMismatchError):
            client.get(other.url())
        assert other.seen.application_data == b""


def test_certificate_without_its_key(itself, stranger) -> None:
    """
    A server that shows the pinned certificate and does not hold its key: OpenSSL asks for the proof, whatever it trusts.

    In TLS 1.2 the certificate goes over the wire in the clear, so it can be replaced there.
    """
    context = pinned_ssl_context(policy(itself), trust="pins-only")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    theirs, ours = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = stranger.server_context(tls=VERSIONS[0]).wrap_bio(theirs, ours, server_side=True)
    for side in (client, server):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
        theirs.write(outgoing.read())
    flight = ours.read()
    assert stranger.chain[0] in flight
    incoming.write(with_certificate(flight, itself.chain[0]))
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.signature|invalid|decrypt") as caught:
        client.do_handshake()
    assert not isinstance(caught.value, PinMismatchError)


def with_certificate(flight: bytes, certificate: bytes) -> bytes:
    """A server's first flight of TLS 1.2, with another certificate in it (RFC 5246 sections 6.2.1 and 7.4)."""
    messages, payload = b"", b""
    while flight:
        length = int.from_bytes(flight[3:5], "big")
        payload, flight = payload + flight[5 : 5 + length], flight[5 + length :]
    while payload:
        kind, length = payload[0], int.from_bytes(payload[1:4], "big")
        body, payload = payload[4 : 4 + length], payload[4 + length :]
        if kind == 11:
            entry = len(certificate).to_bytes(3, "big") + certificate
            body = len(entry).to_bytes(3, "big") + entry
        messages += bytes([kind]) + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + len(messages).to_bytes(2, "big") + messages


@pytest.mark.parametrize("tls", VERSIONS)
def test_bare_context(tls, itself, stranger) -> None:
    """A blocking socket of any library."""
    context = pinned_ssl_context(policy(itself), trust="pins-only")
    with TLSServer(itself.server_context(tls=tls)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            with context.wrap_socket(raw, server_hostname=HOST) as stream:
                stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert stream.recv(9) == b"HTTP/1.1 "
    with TLSServer(stranger.server_context(tls=tls)) as other:
        with socket.create_connection(("127.0.0.1", other.port)) as raw, pytest.raises(PinMismatchError):
            context.wrap_socket(raw, server_hostname=HOST)
        assert other.seen.application_data == b""


def test_client_certificate(itself, genuine) -> None:
    """Both sides know each other by key alone."""
    own = genuine.issue("client.test", client=True)
    context = itself.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=genuine.root_pem)
    with TLSServer(context) as server:
        bare = pinned_ssl_context(policy(itself), trust="pins-only")
        own.load_into(bare)
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            with bare.wrap_socket(raw, server_hostname=HOST) as stream:
                stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert stream.recv(9) == b"HTTP/1.1 "
        assert server.seen.client_certificates == [own.chain[0]]


WEAK = {
    "pins": (lambda pin: [PinSet(name=HOST, pins=[pin, BACKUP])], "only leaf_pins prove anything"),
    "ca_pins": (lambda pin: [PinSet(name=HOST, leaf_pins=[pin, BACKUP], ca_pins=[pin, BACKUP])], "only leaf_pins"),
    "report-only": (
        lambda pin: [PinSet(name=HOST, leaf_pins=[pin, BACKUP], mode=Mode.REPORT_ONLY)],
        'mode = "report-only" would let anybody in',
    ),
    "off": (
        lambda pin: [
            PinSet(name="*.example.com", leaf_pins=[pin, BACKUP]),
            PinSet(name="a.example.com", mode=Mode.OFF),
        ],
        'mode = "off" would let anybody in',
    ),
    "unpin": (
        lambda pin: [PinSet(name=HOST, leaf_pins=[pin, BACKUP], expires=LATER, on_expiry=OnExpiry.UNPIN)],
        'on_expiry = "unpin" would let anybody in',
    ),
}


@pytest.mark.parametrize(
    "make",
    [
        lambda given: pinned_ssl_context(given, trust="pins-only"),
        lambda given: PinnedClient(given, trust="pins-only"),
        lambda given: PinnedAsyncClient(given, trust="pins-only"),
        lambda given: PinnedTransport(given, trust="pins-only"),
    ],
    ids=["context", "client", "async client", "transport"],
)
class TestConstruction:
    """A policy that would let somebody in without a leaf pin is refused."""

    @pytest.mark.parametrize("weak", WEAK)
    def test_weak_rules(self, make, weak, itself) -> None:
        """The rule is named."""
        rules, message = WEAK[weak]
        with pytest.raises(ContextError, match=message):
            make(Policy(rules(itself.pin)))

    def test_unlisted_hosts(self, make, itself) -> None:
        """Nothing would be verified of them."""
        with pytest.raises(ContextError, match="nothing at all would be verified of other hosts"):
            make(Policy([PinSet(name=HOST, leaf_pins=[itself.pin, BACKUP])], Unlisted.ALLOW))

    def test_expiry_that_blocks(self, make, itself) -> None:
        """These two never let anybody in."""
        for on_expiry in (OnExpiry.BLOCK, OnExpiry.ENFORCE):
            make(policy(itself, expires=LATER, on_expiry=on_expiry))


def test_contexts_do_not_mix(itself, genuine) -> None:
    """A context is for one kind of trust, and both have to be named."""
    good = policy(itself)
    with pytest.raises(ContextError, match="give no verify="):
        PinnedClient(good, verify=genuine.client_context(), trust="pins-only")
    with pytest.raises(ContextError, match="CAs have no use"):
        pinned_ssl_context(good, cafile="ca.pem", trust="pins-only")
    pinner = Pinner(good)
    with pytest.raises(ContextError, match="use that context for nothing else"):
        PinnedClient(pinner, verify=pinned_ssl_context(pinner, trust="pins-only"))
    with pytest.raises(ContextError, match="one of 'ca-and-pins', 'pins-only'"):
        PinnedClient(good, trust="nothing")


@pytest.mark.parametrize(
    "replacement",
    [
        lambda pin: Policy([PinSet(name=HOST, pins=[pin, BACKUP])]),
        lambda pin: Policy([PinSet(name="other.test", leaf_pins=[pin, BACKUP])], Unlisted.ALLOW),
        lambda _: Policy([PinSet(name=HOST, leaf_pins=[BACKUP, BACKUP[:-2] + "E="], mode=Mode.REPORT_ONLY)]),
        lambda _: Policy(
            [PinSet(name=f"**.{HOST}", leaf_pins=[BACKUP, BACKUP[:-2] + "E="]), PinSet(name=HOST, mode=Mode.OFF)]
        ),
    ],
    ids=["any pin", "unlisted", "report-only", "off"],
)
def test_a_policy_that_came_later(replacement, itself) -> None:
    """What a replaced policy would let through without a leaf pin is refused, new and pooled connections alike."""
    pinner = Pinner(policy(itself))
    with TLSServer(itself.server_context()) as server, PinnedClient(pinner, trust="pins-only") as client:
        assert client.get(server.url()).status_code == 200
        requests = len(server.seen.requests)
        pinner.replace(replacement(itself.pin))
        for _ in range(2):
            with pytest.raises(UnverifiedChainError, match="trust='pins-only'"):
                client.get(server.url())
        assert len(server.seen.requests) == requests
