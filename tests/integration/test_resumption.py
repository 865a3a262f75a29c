"""
A resumed handshake verifies nothing. Each attack on that works on plain ``ssl`` and a real nginx, and not on us.
"""

from __future__ import annotations

import datetime as dt
import secrets
import socket
import ssl

import httpx
import pytest

import pinset
from pinset import _sessions, _tls
from pinset.testing import Authority

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
protocols = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
FULL, RESUMED = ".", "r"
HOUR = 3600


@pytest.fixture
def site(lab, nginx, tmp_path, version):
    """
    One listener with a certificate for localhost and another for 127.0.0.1, tickets under a key that is kept, and one
    connection per request for whoever asks for it.
    """
    (tmp_path / "tickets").write_bytes(secrets.token_bytes(80))
    authority = lab.genuine["ec"]
    names = authority.issue("localhost", "*.flood.test")
    address = authority.issue("127.0.0.1")
    for name, identity in (("names", names), ("address", address)):
        identity.write(tmp_path, name)
    blocks = "".join(
        f"""
server {{
    listen PORT0 ssl http2{" default_server" if name == "address" else ""};
    {f"listen unix:{tmp_path}/s ssl;" if name == "names" else ""}
    server_name {server_name};
    ssl_protocols {version};
    ssl_certificate {tmp_path}/{name}.pem;
    ssl_certificate_key {tmp_path}/{name}.key;
    ssl_session_ticket_key {tmp_path}/tickets;
    ssl_session_timeout 1d;
    location / {{ return 200 "hello"; }}
}}"""
        for name, server_name in (("address", "127.0.0.1"), ("names", "localhost *.flood.test"))
    )
    with nginx(blocks) as running:
        running.identities = {"localhost": names, "127.0.0.1": address}
        running.pins = {host: [identity.pin, lab.backup()] for host, identity in running.identities.items()}
        running.directory = tmp_path
        yield running


def naive(server, context, session=None, *, name="localhost", path="/naive"):
    """One request over plain ``ssl``: the session, whether it was resumed, and the leaf that the client believes in."""
    with socket.create_connection(("127.0.0.1", server.ports[0]), timeout=10) as raw:
        with context.wrap_socket(raw, server_hostname=name, session=session) as tls:
            tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            while tls.recv(65536):
                pass
            return tls.session, tls.session_reused, tls.getpeercert(binary_form=True)


def transport_for(pins, context, **options):
    """A transport that makes a connection for every request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return pinset.PinnedAsyncTransport(pins, verify=context, limits=limits, **options)


def store_of(transport, port=0):
    """Where *transport* keeps its sessions."""
    return transport._pool._connector.context_for("localhost", port).enforcement.sessions


@protocols
@versions
async def test_sessions_are_resumed(lab, site, version, http2):
    """The second and the third connection save the certificates, and carry the verdict of the chain that was verified."""
    transport = transport_for(site.pins, lab.context(), http2=http2)
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        chains = set()
        for _ in range(4):
            response = await client.get(site.url("/again"))
            chains.add(response.extensions["pinset"].chain)
            assert response.extensions["pinset"].outcome is pinset.Outcome.MATCHED
    assert len(chains) == 1
    protocol = "HTTP/2.0" if http2 else "HTTP/1.1"
    assert site.wait_for("/again", 4) == [(protocol, FULL), *[(protocol, RESUMED)] * 3]


@versions
async def test_switched_off(lab, site, version):
    """session_resumption=False: every handshake is a full one."""
    transport = transport_for(site.pins, lab.context(), session_resumption=False)
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        for _ in range(4):
            assert (await client.get(site.url("/off"))).status_code == 200
    assert {reused for _, reused in site.wait_for("/off", 4)} == {FULL}


@versions
async def test_policy_changed_after_the_ticket(lab, site, version):
    """The session is judged by the policy of now: refused under other pins, in one full handshake that says nothing."""
    context = lab.context()
    session, _, _ = naive(site, context)
    assert naive(site, context, session)[1], "plain ssl resumes and asks nobody"
    pinner = pinset.Pinner(site.pins)
    transport = transport_for(pinner, lab.context())
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        for _ in range(2):
            assert (await client.get(site.url("/before"))).status_code == 200
        assert site.wait_for("/before", 2)[1][1] == RESUMED
        pinner.replace({"localhost": [lab.backup(), lab.backup()]})
        with pytest.raises(pinset.PinMismatchError):
            await client.get(site.url("/refused"))
        assert len(store_of(transport)) == 0
        pinner.replace(site.pins)
        assert (await client.get(site.url("/after"))).status_code == 200
    assert site.wait_for("/after") == [("HTTP/1.1", FULL)]
    assert site.seen("/refused") == []


@versions
async def test_ticket_of_one_host_offered_to_another(lab, site, version):
    """One listener, two hosts: plain ssl takes 127.0.0.1's session for localhost, unverified; ours shakes hands in full."""
    context = lab.context()
    session, _, _ = naive(site, context, name="127.0.0.1")
    _, reused, believed = naive(site, context, session, name="localhost")
    assert reused
    assert believed == site.identities["127.0.0.1"].chain[0], "a certificate that is not localhost's"
    async with httpx.AsyncClient(transport=transport_for(site.pins, lab.context()), timeout=20) as client:
        for host in ("127.0.0.1", "localhost"):
            assert (await client.get(site.url(f"/{host}", host=host))).status_code == 200
    for host in ("127.0.0.1", "localhost"):
        assert site.wait_for(f"/{host}") == [("HTTP/1.1", FULL)]


@versions
async def test_session_of_a_context_that_did_not_verify(lab, site, version):
    """A session from CERT_NONE lets plain ssl skip the verification later; we keep none, and resume none in that state."""
    stranger = Authority("Stranger").client_context()  # trusts nobody here
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    session, _, _ = naive(site, stranger)
    stranger.verify_mode, stranger.check_hostname = ssl.CERT_REQUIRED, True
    assert naive(site, stranger, session)[1], "plain ssl accepts a chain that it would refuse"
    with pytest.raises(ssl.SSLCertVerificationError):
        naive(site, stranger)

    context = Authority("Stranger").client_context()
    transport = transport_for(site.pins, context)
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(pinset.RefusedError):
            await client.get(site.url("/unverified"))
        context.verify_mode, context.check_hostname = ssl.CERT_REQUIRED, True
        assert len(store_of(transport)) == 0
        with pytest.raises(httpx.ConnectError):
            await client.get(site.url("/unverified"))
    assert site.seen("/unverified") == []

    context = lab.context()
    async with httpx.AsyncClient(transport=transport_for(site.pins, context), timeout=20) as client:
        assert (await client.get(site.url("/earned"))).status_code == 200
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(pinset.RefusedError):
            await client.get(site.url("/lowered"))
    assert site.seen("/lowered") == []


@versions
async def test_certificate_swapped_under_kept_ticket_keys(lab, site, version):
    """
    A resumed handshake proves the session's secret and no key. Plain ssl believes for as long as the server likes; we
    notice after the hour for which a session is used.
    """
    context = lab.context()
    session, _, _ = naive(site, context)
    now = [1000.0]
    young, old = (transport_for(site.pins, lab.context()) for _ in range(2))
    for transport in (young, old):
        store_of(transport)._clock = lambda: now[0]
    async with (
        httpx.AsyncClient(transport=young, timeout=20) as first,
        httpx.AsyncClient(transport=old, timeout=20) as second,
    ):
        for client in (first, second):
            assert (await client.get(site.url("/genuine"))).status_code == 200
        rogue = lab.rogue["ec"].issue("localhost")
        rogue.write(site.directory, "names")
        site.reload()
        assert naive(site, lab.context(), path="/swap")[2] == rogue.chain[0]
        _, reused, believed = naive(site, context, session)
        assert reused
        assert believed == site.identities["localhost"].chain[0], "the genuine one, which the server no longer has"
        now[0] += HOUR - 1
        assert (await first.get(site.url("/young"))).status_code == 200
        assert site.wait_for("/young") == [("HTTP/1.1", RESUMED)]
        now[0] += 1
        for client in (first, second):  # a resumption does not make a session younger
            with pytest.raises(pinset.PinMismatchError):
                await client.get(site.url("/old"))
    assert site.seen("/old") == []


@versions
async def test_expired_leaf(lab, site, version):
    """Past the end of a certificate of its chain, a session is not offered any more."""
    now = [dt.datetime.now(dt.UTC)]
    pinner = pinset.Pinner(site.pins, clock=lambda: now[0])
    async with httpx.AsyncClient(transport=transport_for(pinner, lab.context()), timeout=20) as client:
        assert (await client.get(site.url("/valid"))).status_code == 200
        now[0] += dt.timedelta(days=28)
        assert (await client.get(site.url("/valid"))).status_code == 200
        now[0] += dt.timedelta(days=400)
        assert (await client.get(site.url("/expired"))).status_code == 200
    assert [reused for _, reused in site.wait_for("/valid", 2)] == [FULL, RESUMED]
    assert site.wait_for("/expired") == [("HTTP/1.1", FULL)]


@pytest.mark.parametrize("version", ["TLSv1.3"])
async def test_flooding(lab, site, version):
    """A thousand hosts leave 256 sessions, those used last."""
    pins = {"*.flood.test": site.pins["localhost"]}
    transport = transport_for(pins, lab.context(), uds=f"{site.directory}/s")
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        for number in range(1000):
            assert (await client.get(f"https://h{number}.flood.test/flood")).status_code == 200
        assert len(store_of(transport)) == 256
        assert (await client.get("https://h999.flood.test/last")).status_code == 200
        assert (await client.get("https://h0.flood.test/first")).status_code == 200
    assert site.wait_for("/last") == [("HTTP/1.1", RESUMED)]
    assert site.wait_for("/first") == [("HTTP/1.1", FULL)]


def offered_ticket(hello):
    """The first identity of the ``pre_shared_key`` extension of a ClientHello (RFC 8446 section 4.2.11), if any."""
    at = 5 + 4 + 2 + 32  # record and message header, version, random
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    at += 2
    while at < 5 + int.from_bytes(hello[3:5], "big"):
        kind, size = (int.from_bytes(hello[at + offset : at + offset + 2], "big") for offset in (0, 2))
        if kind == 41:
            identity = int.from_bytes(hello[at + 6 : at + 8], "big")
            return hello[at + 8 : at + 8 + identity]
        at += 4 + size
    return None


@pytest.mark.parametrize("version", ["TLSv1.3"])
async def test_a_ticket_is_offered_once(lab, site, relay, monkeypatch, version):
    """So that nobody can tell connections of one client by it (RFC 8446 appendix C.4)."""
    for module in (_sessions, _tls):  # on an interpreter that loses memory by it, a ticket is used again
        monkeypatch.setattr(module, "SESSIONS_LEAK", False)
    with relay(site.ports[0]) as wire:
        async with httpx.AsyncClient(transport=transport_for(site.pins, lab.context()), timeout=20) as client:
            for _ in range(5):
                assert (await client.get(f"https://localhost:{wire.port}/once")).status_code == 200
        tickets = [offered_ticket(sent) for sent in wire.captured()]
    assert tickets[0] is None
    assert None not in tickets[1:]
    assert len(set(tickets)) == 5
    assert [reused for _, reused in site.wait_for("/once", 5)] == [FULL] + [RESUMED] * 4


@versions
async def test_the_server_forgot(lab, site, version):
    """A ticket under another key is no error: the handshake is a full one, and its session is kept instead."""
    transport = transport_for(site.pins, lab.context())
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        assert (await client.get(site.url("/kept"))).status_code == 200
        (site.directory / "tickets").write_bytes(secrets.token_bytes(80))
        site.reload()
        for _ in range(2):
            assert (await client.get(site.url("/forgot"))).status_code == 200
    assert [reused for _, reused in site.wait_for("/forgot", 2)] == [FULL, RESUMED]
