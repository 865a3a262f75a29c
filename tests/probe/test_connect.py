"""
The chain of a server: direct, after STARTTLS, through proxies, and every way in which there is none.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from probe.scripted import scripted

from pinset import InputError, PinSet, Policy
from pinset.operate.record import Result
from pinset.probe import ProbeError, StartTLS, Target, check_targets, fetch_chain, fetch_targets
from pinset.testing import Identity, Interceptor, TLSServer

HOST = "localhost"


@pytest.fixture
def server(leaf):
    with TLSServer(leaf.server_context()) as running:
        yield running


def fetch(context, timeout=10, **fields):
    return asyncio.run(fetch_chain(Target(**{"host": HOST, **fields}), context, timeout=timeout))


def refused(context, **fields) -> tuple[Result, str]:
    with pytest.raises(ProbeError) as caught:
        fetch(context, **fields)
    return caught.value.result, str(caught.value)


def test_verified_chain(server, genuine, leaf):
    """Leaf first, up to the root that the server did not send; and no byte of data after the handshake."""
    chain = fetch(genuine.client_context(), port=server.port)
    assert chain == (*leaf.chain, genuine.root)
    assert server.seen.application_data == b""


def test_certificate_that_cannot_be_read(genuine, leaf):
    """OpenSSL takes a length in more bytes than needed, which is no DER: said of that host, and the others are probed."""
    certificate = x509.load_der_x509_certificate(leaf.chain[0])
    signed = certificate.tbs_certificate_bytes
    assert signed[:2] == b"\x30\x82"
    loose = b"\x30\x83\x00" + signed[2:]
    signature = genuine._signer_key.sign(loose, ec.ECDSA(certificate.signature_hash_algorithm))
    algorithm = certificate.public_bytes(Encoding.DER)[4 + len(signed) :][:12]  # ecdsa-with-SHA256
    bits = b"\x03" + bytes([len(signature) + 1]) + b"\x00" + signature
    body = loose + algorithm + bits
    identity = Identity(leaf.key, (b"\x30\x82" + len(body).to_bytes(2, "big") + body, *leaf.chain[1:]))
    with TLSServer(identity.server_context()) as loosely, TLSServer(leaf.server_context()) as strictly:
        targets = [Target(host=HOST, port=each.port) for each in (loosely, strictly)]
        found = asyncio.run(fetch_targets(targets, genuine.client_context(), timeout=10, jobs=2))
    assert (found[0].result, found[1][0]) == (Result.UNVERIFIED, leaf.chain[0])
    assert str(found[0]).startswith("a certificate of the chain cannot be read: ")


def test_name_and_address(server, genuine, leaf):
    """Another address is connected to, and another name verified for."""
    context, address = genuine.client_context(), ("127.0.0.1", server.port)
    assert fetch(context, host="localhost", port=1, connect_to=address)[0] == leaf.chain[0]
    assert fetch(context, host="unknown.invalid", sni=HOST, connect_to=address)[0] == leaf.chain[0]
    result, reason = refused(context, host="other.test", connect_to=address)
    assert result is Result.UNVERIFIED
    assert "other.test" in reason


def test_chain_that_does_not_verify(server, rogue):
    """A chain comes out only if it verifies."""
    result, reason = refused(rogue.client_context(), port=server.port)
    assert result is Result.UNVERIFIED
    assert reason.startswith("the chain does not verify: ")


SCRIPTS = {
    StartTLS.SMTP: [b"220-mail\r\n220 ready\r\n", [], b"250-SIZE\r\n250 STARTTLS\r\n", [], b"220 go\r\n"],
    StartTLS.IMAP: [b"* OK ready\r\n", [], b"* CAPABILITY IMAP4\r\na OK begin\r\n"],
    StartTLS.POSTGRES: [[], b"S"],
}
WORDS = {
    StartTLS.SMTP: [b"EHLO pinset.invalid\r\n", b"STARTTLS\r\n"],
    StartTLS.IMAP: [b"a STARTTLS\r\n"],
    StartTLS.POSTGRES: [bytes.fromhex("0000000804d2162f")],
}


@pytest.mark.parametrize("protocol", StartTLS)
def test_starttls(protocol, genuine, leaf):
    """Mail and databases say their words in the clear first."""
    with scripted(SCRIPTS[protocol], leaf.server_context()) as (port, arrived):
        chain = fetch(genuine.client_context(), port=port, starttls=protocol)
    assert chain[0] == leaf.chain[0]
    assert arrived == WORDS[protocol]


@pytest.mark.parametrize(
    ("protocol", "script", "reason"),
    [
        (StartTLS.SMTP, [b"554 no\r\n"], "the server answered '554 no' where 220 was expected"),
        (StartTLS.SMTP, [b"220 hi\r\n", [], b"250 hi\r\n", [], b"454 TLS not available\r\n"], "where 220 was expected"),
        (StartTLS.SMTP, [b"220-x\r\n" * 101], "the server's answer has no end"),
        (StartTLS.IMAP, [b"* BYE\r\n"], "where * OK was expected"),
        (StartTLS.IMAP, [b"* OK\r\n", [], b"a NO\r\n"], "where a OK was expected"),
        (StartTLS.POSTGRES, [[], b"N"], "it has no TLS"),
        (StartTLS.SMTP, [b"x" * 100_000], "the connection ended before TLS"),
    ],
)
def test_starttls_that_is_refused(protocol, script, reason, genuine):
    """A server that will not, or talks without end, is unreachable, with its words."""
    with scripted(script) as (port, _):
        result, said = refused(genuine.client_context(), port=port, starttls=protocol)
    assert result is Result.UNREACHABLE
    assert reason in said


def test_no_connection(genuine):
    """A port where nobody listens, and a name that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refused(genuine.client_context(), port=port)[1].startswith("no connection: ")
    assert refused(genuine.client_context(), host="nowhere.invalid", port=port)[0] is Result.UNREACHABLE


def test_no_tls(genuine):
    """A server that speaks no TLS, and one that says nothing."""
    with scripted([b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as (port, _):
        assert refused(genuine.client_context(), port=port)[1].startswith("TLS failed: ")
    with scripted([]) as (port, _):
        assert refused(genuine.client_context(), port=port, timeout=0.2) == (Result.UNREACHABLE, "no answer in 0.2 s")


def test_server_that_hangs_up(genuine):
    """A connection that ends in the middle of the words."""
    with scripted([b"220 hi\r\n", [], b"250-"]) as (port, _):
        assert (
            refused(genuine.client_context(), port=port, starttls=StartTLS.SMTP, timeout=0.2)[0] is Result.UNREACHABLE
        )


def test_through_a_proxy(server, genuine, rogue, leaf):
    """CONNECT, with what an intercepting proxy shows: the chain is that of whoever answers."""
    with Interceptor(rogue, upstream=genuine.client_context()) as proxy:
        chain = fetch(rogue.client_context(), port=server.port, proxy=proxy.url)
    assert chain[0] != leaf.chain[0]
    assert chain[-1] == rogue.root


def test_proxy_that_asks_for_a_password(genuine, leaf):
    """User and password of the URL go to the proxy, and an IPv6 address in brackets."""
    script = [[], b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"]
    with scripted(script, leaf.server_context()) as (port, arrived):
        fetch(genuine.client_context(), host="::1", proxy=f"http://user:p%40ss@127.0.0.1:{port}")
    assert arrived == [
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy answered 'HTTP/1.1 407"),
        (b"nonsense\r\n", "the proxy answered 'nonsense'"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101, "the proxy's answer has no end"),
    ],
)
def test_proxy_that_refuses(answer, reason, genuine):
    """What the proxy says is in the error."""
    with scripted([[], answer]) as (port, _):
        result, said = refused(genuine.client_context(), proxy=f"http://127.0.0.1:{port}")
    assert result is Result.UNREACHABLE
    assert reason in said


@pytest.mark.parametrize("proxy", ["https://127.0.0.1:1", "ftp://127.0.0.1", "127.0.0.1:8080", "http://"])
def test_proxies_that_cannot_be_used(proxy, genuine):
    """A proxy of another kind is what was given wrongly, not what was found."""
    with pytest.raises(InputError, match="is not a proxy that can be used"):
        fetch(genuine.client_context(), proxy=proxy)
    targets = [Target(host=HOST, proxy=proxy)] * 3
    with pytest.raises(InputError):
        asyncio.run(fetch_targets(targets, genuine.client_context(), timeout=1, jobs=2))


def test_socks_needs_its_extra(genuine, monkeypatch):
    """Without the extra, the error names it."""
    monkeypatch.setitem(__import__("sys").modules, "python_socks", None)
    with pytest.raises(InputError, match=r"pinset\[socks\]"):
        fetch(genuine.client_context(), proxy="socks5://127.0.0.1:1")


def test_socks_proxy_that_refuses(genuine):
    """A SOCKS proxy that speaks another protocol is unreachable."""
    pytest.importorskip("python_socks")
    with scripted([[], b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as (port, _):
        assert refused(genuine.client_context(), proxy=f"socks5://127.0.0.1:{port}")[0] is Result.UNREACHABLE


def test_never_more_at_a_time(server, genuine):
    """Connections wait for their turn, and each is counted when it is done."""
    open_now, most, done = 0, 0, 0
    start_tls = asyncio.StreamWriter.start_tls

    async def counted(self, *args, **keywords):
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await start_tls(self, *args, **keywords)
        finally:
            open_now -= 1

    def count():
        nonlocal done
        done += 1

    targets = [Target(host=HOST, port=server.port)] * 9 + [Target(host=HOST, port=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.StreamWriter, "start_tls", counted)
        chains = asyncio.run(fetch_targets(targets, genuine.client_context(), timeout=10, jobs=3, on_done=count))
    assert (most <= 3, done) == (True, 10)
    assert [isinstance(chain, ProbeError) for chain in chains] == [False] * 9 + [True]


def test_records(server, genuine, leaf, pins):
    """A record a target: matched, mismatched, excluded from nothing, expired and unreachable."""
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    context = genuine.client_context()

    def check(port=server.port, **fields):
        policy = Policy((PinSet(**{"name": HOST, "pins": pins[HOST], **fields}),))
        targets = [Target(host=HOST, port=port)]
        [record] = asyncio.run(check_targets(policy, targets, context, now=now, timeout=10, jobs=1))
        return record

    good = check()
    assert (good.result, [str(pin) for pin in good.matched], good.host) == (Result.MATCHED, [leaf.pin], HOST)
    assert str(good.chain[0].pin) == leaf.pin
    other = [f"sha256/{'AQEB' * 10}AQE=", f"sha256/{'AgIC' * 10}AgI="]
    assert check(pins=other).result is Result.MISMATCHED
    assert check(pins=other, mode="report-only").result is Result.MISMATCHED
    assert check(expires=now - timedelta(1), on_expiry="block").result is Result.EXPIRED
    assert check(expires=now - timedelta(1), on_expiry="unpin").result is Result.MATCHED
    lost = check(port=1)
    assert (lost.result, lost.chain) == (Result.UNREACHABLE, ())
    assert lost.detail.startswith("no connection")


def test_context_of_the_system_is_not_trusted_blindly(server):
    """By the system's authorities the throw-away chain does not verify."""
    assert refused(ssl.create_default_context(), port=server.port)[0] is Result.UNVERIFIED
