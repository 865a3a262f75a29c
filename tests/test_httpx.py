"""
The async httpx client and transport: every road pinned, every refusal an httpx error, nothing retried.
"""

from __future__ import annotations

import functools
import http.server
import pickle
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
import trio
import trustme
import truststore
import uvloop
from conftest import BACKUP, HOST, wire

import pinset.httpx
from pinset import (
    CleartextError,
    ContextError,
    HostError,
    Outcome,
    PinMismatchError,
    PinnedAsyncClient,
    PinnedAsyncTransport,
    Pinner,
    PinSet,
    Policy,
    PolicyError,
    RefusedError,
    ServerNameError,
    UnlistedHostError,
    UnverifiedChainError,
    load_policy,
    pinned_ssl_context,
)
from pinset.testing import Authority, Identity, Interceptor, TLSServer

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
LOOPS = {
    "asyncio": functools.partial(anyio.run, backend="asyncio"),
    "uvloop": functools.partial(anyio.run, backend="asyncio", backend_options={"loop_factory": uvloop.new_event_loop}),
    "trio": functools.partial(anyio.run, backend="trio"),
}


@pytest.fixture
def trust(genuine: Authority, rogue: Authority) -> ssl.SSLContext:
    """A fresh context of a client that trusts the genuine and the rogue authority."""
    return genuine.client_context(rogue)


@pytest.fixture(scope="module")
def server(leaf: Identity) -> Iterator[TLSServer]:
    """The genuine server."""
    with TLSServer(leaf.server_context()) as running:
        yield running


@pytest.fixture
def attacker(impostor: Identity) -> Iterator[TLSServer]:
    """The attacker's server, with a certificate that the client trusts."""
    with TLSServer(impostor.server_context()) as running:
        yield running


@contextmanager
def cleartext() -> Iterator[tuple[int, list[str]]]:
    """A plain HTTP server; its port and the paths that were asked of it."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as plain:
        thread = threading.Thread(target=plain.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield plain.server_port, paths
        plain.shutdown()
        thread.join()


async def eventually(condition) -> bool:
    """Whether *condition* comes true within five seconds: other threads need a moment to note what they saw."""
    for _ in range(500):
        if condition():
            return True
        await anyio.sleep(0.01)
    return False


def redirect(location: str):
    """A responder that redirects to *location*."""
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    return lambda _: head


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("tls", VERSIONS)
def test_right_and_wrong_pin(loop, tls, pins, leaf, impostor, genuine, rogue) -> None:
    """Stock httpx tells the impostor everything; ours sends it one ClientHello. The right server answers, with a verdict."""

    async def run() -> None:
        trust = genuine.client_context(rogue)
        with TLSServer(impostor.server_context(tls=tls)) as attacker:
            async with httpx.AsyncClient(verify=trust) as stock:
                assert (await stock.get(attacker.url(), headers={"authorization": "s3cret"})).status_code == 200
            assert b"s3cret" in attacker.seen.application_data
            before = len(attacker.seen.application_data)
            with wire(attacker.port) as relay:
                async with PinnedAsyncClient(pins, verify=trust) as client:
                    with pytest.raises(PinMismatchError) as caught:
                        await client.get(f"https://{HOST}:{relay.port}/", headers={"authorization": "s3cret"})
        assert relay.records() == [22]  # one handshake record: the ClientHello
        assert relay.connections == 1
        assert len(attacker.seen.application_data) == before
        assert isinstance(caught.value, httpx.TransportError)
        assert not isinstance(caught.value, (httpx.NetworkError, ssl.SSLError))
        assert caught.value.request.url.host == HOST
        assert caught.value.verdict.outcome is Outcome.MISMATCHED
        with TLSServer(leaf.server_context(tls=tls)) as server:
            async with PinnedAsyncClient(pins, verify=trust) as client:
                response = await client.get(server.url())
                again = await client.get(server.url(path="/again"))
            assert response.extensions["pinset"].outcome is Outcome.MATCHED
            assert again.extensions["pinset"] is response.extensions["pinset"]
            assert server.seen.connections == 1

    LOOPS[loop](run)


@pytest.mark.parametrize("tls", VERSIONS)
@pytest.mark.parametrize("loop", LOOPS)
def test_client_certificate_is_not_shown_to_an_impostor(loop, tls, pins, leaf, impostor, genuine, rogue) -> None:
    """An impostor that asks for a client certificate gets one from stock httpx and none from us, on TLS 1.2 and 1.3."""
    own = genuine.issue("client.test", client=True)

    def asking(identity: Identity) -> TLSServer:
        context = identity.server_context(tls=tls)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=genuine.root_pem)
        return TLSServer(context)

    async def run() -> None:
        trust = genuine.client_context(rogue)
        own.load_into(trust)
        with asking(impostor) as attacker:
            async with httpx.AsyncClient(verify=trust) as stock:
                await stock.get(attacker.url())
            assert attacker.seen.client_certificates == [own.chain[0]]
            with wire(attacker.port) as relay:
                async with PinnedAsyncClient(pins, verify=trust) as client:
                    with pytest.raises(PinMismatchError):
                        await client.get(f"https://{HOST}:{relay.port}/")
            assert relay.records() == [22]
        assert attacker.seen.client_certificates == [own.chain[0]]
        with asking(leaf) as server:
            async with PinnedAsyncClient(pins, verify=trust) as client:
                await client.get(server.url())
        assert server.seen.client_certificates == [own.chain[0]]

    LOOPS[loop](run)


@pytest.mark.asyncio
@pytest.mark.parametrize("as_pair", [True, False])
async def test_cert_keyword(as_pair, pins, leaf, genuine, tmp_path, monkeypatch) -> None:
    """``cert=`` takes what httpx takes, and cannot be mixed with a context."""
    own = genuine.issue("client.test", client=True)
    chain, key = own.write(tmp_path, "client")
    both = tmp_path / "both.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    assert key.stat().st_mode & 0o777 == 0o600
    context = leaf.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=genuine.root_pem)
    cert = (str(chain), str(key)) if as_pair else str(both)
    with genuine.trust_file() as roots, TLSServer(context) as server:
        monkeypatch.setenv("SSL_CERT_FILE", roots)
        async with PinnedAsyncClient(pins, cert=cert) as client:
            assert (await client.get(server.url())).status_code == 200
        with pytest.raises(ContextError, match="load_cert_chain"):
            PinnedAsyncClient(pins, cert=cert, verify=genuine.client_context())


@pytest.mark.asyncio
@pytest.mark.parametrize("retries", [0, 5])
async def test_a_pin_failure_is_final(retries, pins, attacker, trust) -> None:
    """One handshake, whatever retries say; a bare context under stock httpx is retried, as documented."""
    context = pinned_ssl_context(pins, cadata=None)
    for authority in trust.get_ca_certs(binary_form=True):
        context.load_verify_locations(cadata=authority)
    if retries:
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=context, retries=1)) as stock:
            with pytest.raises(httpx.ConnectError) as mapped:
                await stock.get(attacker.url())
        assert attacker.seen.connections == 2
        cause: BaseException | None = mapped.value
        while cause is not None and not isinstance(cause, PinMismatchError):
            cause = cause.__cause__ or cause.__context__
        assert isinstance(cause, ssl.SSLCertVerificationError)
    before = attacker.seen.connections
    async with httpx.AsyncClient(transport=PinnedAsyncTransport(pins, verify=trust, retries=retries)) as client:
        with pytest.raises(PinMismatchError):
            await client.get(attacker.url())
    assert attacker.seen.connections == before + 1


@pytest.mark.asyncio
async def test_the_error_can_be_pasted(attacker, trust, tmp_path, impostor) -> None:
    """A newcomer pins something wrong, reads the error, pastes the pins it shows into the policy, and is served."""
    policy = tmp_path / "pins.toml"
    other = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
    policy.write_text(f'[[host]]\nname = "{HOST}"\npins = ["{BACKUP}", "{other}"]\n')
    async with PinnedAsyncClient(load_policy(policy), verify=trust) as client:
        with pytest.raises(PinMismatchError) as caught:
            await client.get(attacker.url())
    text = str(caught.value)
    expected, _, seen = text.partition("  seen  ")
    assert f"{HOST} (enforce)" in expected
    assert BACKUP in expected
    assert other in expected
    assert "CN=localhost" in seen
    assert "next  " in seen
    shown = [word for word in seen.split() if word.startswith("sha256/")]
    assert shown[0] == impostor.pin
    assert len(shown) == 3
    policy.write_text(f'[[host]]\nname = "{HOST}"\npins = ["{shown[0]}", "{BACKUP}"]\n')
    async with PinnedAsyncClient(load_policy(policy), verify=trust) as client:
        assert (await client.get(attacker.url())).status_code == 200


class TestBeforeConnecting:
    """What is refused before a single packet leaves."""

    @pytest.mark.asyncio
    @pytest.mark.parametrize("scheme", ["http", "ws"])
    @pytest.mark.parametrize("unlisted", ["deny", "allow"])
    async def test_cleartext_to_a_listed_host(self, scheme, unlisted, leaf) -> None:
        """``http://`` to a listed host reaches it with stock httpx, and is refused by ours before connecting."""
        policy = Policy((PinSet(name=HOST, pins=[leaf.pin, BACKUP]),), unlisted)
        with cleartext() as (port, paths):
            async with httpx.AsyncClient() as stock:
                await stock.get(f"http://{HOST}:{port}/stock")
            async with httpx.AsyncClient(transport=PinnedAsyncTransport(policy)) as client:
                with pytest.raises(
                    CleartextError, match=scheme.replace("http", "https").replace("ws", "wss")
                ) as caught:
                    await client.get(f"{scheme}://{HOST}:{port}/ours")
        assert paths == ["/stock"]
        assert isinstance(caught.value, httpx.UnsupportedProtocol)
        assert caught.value.host == HOST
        assert caught.value.request.url.port == port

    @pytest.mark.asyncio
    async def test_cleartext_to_an_unlisted_host(self, leaf) -> None:
        """``http://`` elsewhere works only where unlisted hosts may be reached."""
        rule = (PinSet(name="api.test", pins=[leaf.pin, BACKUP]),)
        with cleartext() as (port, paths):
            async with PinnedAsyncClient(Policy(rule, "allow")) as client:
                response = await client.get(f"http://{HOST}:{port}/allowed")
                assert "pinset" not in response.extensions
            async with PinnedAsyncClient(Policy(rule)) as client:
                with pytest.raises(UnlistedHostError):
                    await client.get(f"http://{HOST}:{port}/denied")
        assert paths == ["/allowed"]

    @pytest.mark.asyncio
    async def test_unlisted_host(self, leaf, server, trust) -> None:
        """A host without a rule is refused by default, with what to do about it."""
        told = []
        pinner = Pinner({"api.test": [leaf.pin, BACKUP]}, observers=[told.append])
        before = server.seen.connections
        async with PinnedAsyncClient(pinner, verify=trust) as client:
            with pytest.raises(UnlistedHostError, match='unlisted = "allow"') as caught:
                await client.get(server.url())
        assert server.seen.connections == before
        assert isinstance(caught.value, httpx.TransportError)
        assert caught.value.verdict.outcome is Outcome.UNLISTED
        assert [verdict.outcome for verdict in told] == [Outcome.UNLISTED]
        pinner.replace(Policy(pinner.policy.pin_sets, "allow"))
        async with PinnedAsyncClient(pinner, verify=trust) as client:
            response = await client.get(server.url())
        assert response.extensions["pinset"].outcome is Outcome.UNLISTED

    @pytest.mark.asyncio
    @pytest.mark.parametrize("name", ["other.test", b"other.test", "", "not a name"])
    async def test_sni_hostname_of_another_host(self, name, leaf, attacker, trust, rogue) -> None:
        """With another server name the pins of that name would be asked: stock code is fooled, ours refuses."""
        policy = Policy((PinSet(name=HOST, pins=[leaf.pin, BACKUP]),), "allow")
        if name == "other.test":
            # The naive pin check looks at the server name of the handshake, and finds no rule for it …
            naive = pinned_ssl_context(policy, cadata=rogue.root_pem)
            async with httpx.AsyncClient(verify=naive) as stock:
                await stock.get(attacker.url(), extensions={"sni_hostname": name})
                # … and the pool hands the connection to a request without the extension.
                await stock.get(attacker.url(path="/fooled"))
            assert b"/fooled" in attacker.seen.application_data
        before = attacker.seen.connections
        async with PinnedAsyncClient(policy, verify=trust) as client:
            with pytest.raises(ServerNameError, match="sni_hostname") as caught:
                await client.get(attacker.url(), extensions={"sni_hostname": name})
        assert attacker.seen.connections == before
        assert isinstance(caught.value, httpx.TransportError)

    @pytest.mark.asyncio
    async def test_sni_hostname_of_the_same_host(self, pins, server, trust) -> None:
        """The host's own name, in any spelling, is no contradiction."""
        async with PinnedAsyncClient(pins, verify=trust) as client:
            response = await client.get(server.url(), extensions={"sni_hostname": "LOCALHOST"})
        assert response.status_code == 200

    @pytest.mark.asyncio
    @pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "a..b"])
    async def test_host_without_canonical_form(self, host, leaf) -> None:
        """A spelling that slips past its rule is refused, also where unlisted hosts may be reached."""
        policy = Policy((PinSet(name="127.0.0.1", pins=[leaf.pin, BACKUP]),), "allow")
        async with httpx.AsyncClient(transport=PinnedAsyncTransport(policy)) as client:
            with pytest.raises((HostError, httpx.InvalidURL)):
                await client.get(f"https://{host}/")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "spelling",
    ["LOCALHOST", "user:password@localhost", "LocalHost", "127.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]", "localhost."],
)
async def test_every_spelling_finds_its_rule(spelling, leaf, attacker, trust, impostor) -> None:
    """Whatever way a listed host is written, the impostor behind it is refused, or the name does not verify."""
    policy = Policy((PinSet(name=HOST, pins=[leaf.pin, BACKUP]), PinSet(name="127.0.0.1", pins=[leaf.pin, BACKUP]),
                     PinSet(name="0::1", pins=[leaf.pin, BACKUP])), "allow")  # fmt: skip
    async with PinnedAsyncClient(policy, verify=trust, trust_env=False) as client:
        with pytest.raises((PinMismatchError, httpx.ConnectError)) as caught:
            await client.get(f"https://{spelling}:{attacker.port}/")
    assert attacker.seen.application_data == b""
    if "::" not in spelling and ":0:" not in spelling and not spelling.endswith("."):
        assert isinstance(caught.value, PinMismatchError)


@pytest.mark.asyncio
async def test_host_header_does_not_choose_the_rule(pins, attacker, trust) -> None:
    """Pins belong to the host of the URL; a Host header changes nothing."""
    async with PinnedAsyncClient(pins, verify=trust) as client:
        with pytest.raises(PinMismatchError):
            await client.get(attacker.url(), headers={"host": "other.test"})


class TestRedirects:
    """Redirects obey the policy like any request."""

    @pytest.mark.asyncio
    async def test_to_an_unlisted_host(self, pins, leaf, attacker, trust) -> None:
        """A redirect out of the policy is followed by stock httpx and refused by ours."""
        target = f"https://127.0.0.1:{attacker.port}/stolen"
        with TLSServer(leaf.server_context(), respond=redirect(target)) as server:
            async with httpx.AsyncClient(verify=trust, follow_redirects=True) as stock:
                assert (await stock.get(server.url())).status_code == 200
            assert b"/stolen" in attacker.seen.application_data
            before = attacker.seen.connections
            async with PinnedAsyncClient(pins, verify=trust, follow_redirects=True) as client:
                with pytest.raises(UnlistedHostError):
                    await client.get(server.url())
        assert attacker.seen.connections == before

    @pytest.mark.asyncio
    async def test_to_cleartext(self, pins, leaf, trust) -> None:
        """A redirect to http:// on the listed host is refused before connecting."""
        with cleartext() as (port, paths):
            responder = redirect(f"http://{HOST}:{port}/stolen")
            with TLSServer(leaf.server_context(), respond=responder) as server:
                async with httpx.AsyncClient(verify=trust, follow_redirects=True) as stock:
                    await stock.get(server.url())
                assert paths == ["/stolen"]
                async with PinnedAsyncClient(pins, verify=trust, follow_redirects=True) as client:
                    with pytest.raises(CleartextError):
                        await client.get(server.url())
            assert paths == ["/stolen"]

    @pytest.mark.asyncio
    async def test_from_unlisted_to_pinned(self, leaf, impostor, trust) -> None:
        """A redirect into the policy is checked there."""
        policy = Policy((PinSet(name=HOST, pins=[leaf.pin, BACKUP]),), "allow")
        with TLSServer(impostor.server_context()) as attacker:
            with TLSServer(leaf.server_context(), respond=redirect(attacker.url())) as server:
                async with PinnedAsyncClient(policy, verify=trust, follow_redirects=True) as client:
                    with pytest.raises(PinMismatchError):
                        await client.get(server.url("127.0.0.1"))
        assert attacker.seen.application_data == b""


class TestProxies:
    """An interceptor in the place of a proxy: the stock client is read, ours is not, however the proxy is given."""

    @pytest.fixture
    def interceptor(self, rogue, genuine) -> Iterator[Interceptor]:
        with Interceptor(rogue, upstream=genuine.client_context()) as running:
            yield running

    @pytest.mark.asyncio
    async def test_proxy_keyword(self, pins, server, interceptor, trust) -> None:
        """``proxy=`` of the client stays pinned."""
        async with httpx.AsyncClient(verify=trust, proxy=interceptor.url) as stock:
            assert (await stock.get(server.url())).status_code == 200
        read = len(interceptor.intercepted[HOST])
        for proxy in (interceptor.url, httpx.URL(interceptor.url), httpx.Proxy(interceptor.url)):
            async with PinnedAsyncClient(pins, verify=trust, proxy=proxy) as client:
                with pytest.raises(PinMismatchError) as caught:
                    await client.get(server.url())
            assert caught.value.request.url.host == HOST
        assert len(interceptor.intercepted[HOST]) == read
        assert await eventually(lambda: interceptor.refused.get(HOST) == 3)

    @pytest.mark.asyncio
    async def test_pins_of_the_proxy_itself(self, pins, leaf, impostor, genuine, rogue, trust) -> None:
        """A proxy is pinned by a context of its own: its refusal is httpx's, final, and the origin's pins have no say."""
        origin_pins = {"origin.test": pins[HOST]}
        everybody = genuine.root_pem + rogue.root_pem
        refusal = b"HTTP/1.1 407 No\r\n\r\n"
        with TLSServer(impostor.server_context(), respond=lambda _: refusal) as proxy:
            stock = httpx.Proxy(proxy.url(), ssl_context=genuine.client_context(rogue))
            async with httpx.AsyncClient(verify=trust, proxy=stock) as client:
                with pytest.raises(httpx.ProxyError):
                    await client.get("https://origin.test/", headers={"Proxy-Authorization": "Basic secret"})
            before = proxy.seen.connections, len(proxy.seen.application_data)
            assert before[1] > 0
            pinned = httpx.Proxy(proxy.url(), ssl_context=pinned_ssl_context(pins, cadata=everybody), auth=("a", "b"))
            transport = PinnedAsyncTransport(origin_pins, verify=trust, proxy=pinned, retries=3)
            async with httpx.AsyncClient(transport=transport) as client:
                with pytest.raises(pinset.httpx.PinMismatchError) as caught:
                    await client.get("https://origin.test/")
            assert (caught.value.host, caught.value.request.url.host) == (HOST, "origin.test")
            assert proxy.seen.connections == before[0] + 1
            assert len(proxy.seen.application_data) == before[1]
        with TLSServer(leaf.server_context(), respond=lambda _: refusal) as proxy:
            pinned = httpx.Proxy(proxy.url(), ssl_context=pinned_ssl_context(pins, cadata=everybody))
            async with PinnedAsyncClient(origin_pins, verify=trust, proxy=pinned) as client:
                with pytest.raises(httpx.ProxyError, match="407"):
                    await client.get("https://origin.test/")

    @pytest.mark.asyncio
    async def test_environment(self, pins, server, interceptor, trust, monkeypatch) -> None:
        """The proxy environment variables are obeyed, and pinned; NO_PROXY goes direct, and pinned."""
        monkeypatch.setenv("HTTPS_PROXY", interceptor.url)
        async with PinnedAsyncClient(pins, verify=trust) as client:
            with pytest.raises(PinMismatchError):
                await client.get(server.url())
        assert await eventually(lambda: interceptor.refused.get(HOST) == 1)
        monkeypatch.setenv("NO_PROXY", HOST)
        async with PinnedAsyncClient(pins, verify=trust) as client:
            assert (await client.get(server.url())).status_code == 200
        monkeypatch.delenv("NO_PROXY")
        async with PinnedAsyncClient(pins, verify=trust, trust_env=False) as client:
            assert (await client.get(server.url())).status_code == 200
        assert interceptor.refused[HOST] == 1

    @pytest.mark.asyncio
    async def test_transport_with_a_proxy(self, pins, server, interceptor, trust) -> None:
        """A proxy given to the transport is pinned. Next to ``transport=`` of stock httpx it is not: hence our client."""
        transport = PinnedAsyncTransport(pins, verify=trust, proxy=interceptor.url)
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(PinMismatchError):
                await client.get(server.url())
        pinned = PinnedAsyncTransport(pins, verify=trust)
        async with httpx.AsyncClient(transport=pinned, proxy=interceptor.url, verify=trust) as bypassed:
            assert (await bypassed.get(server.url())).status_code == 200

    @pytest.mark.asyncio
    async def test_refusals_in_a_tunnel_lose_no_place(self, pins, server, interceptor, trust) -> None:
        """Stock httpx loses a place in the pool with each TLS failure behind CONNECT; ours gives it back."""
        limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(5, pool=0.2)
        strict = Authority("Stranger").client_context()
        stock = httpx.AsyncClient(verify=strict, proxy=interceptor.url, limits=limits, timeout=timeout)
        with pytest.raises(httpx.ConnectError):
            await stock.get(server.url())
        with pytest.raises(httpx.PoolTimeout):
            await stock.get(server.url())
        await stock.aclose()
        pinner = Pinner(pins)
        async with PinnedAsyncClient(
            pinner, verify=trust, proxy=interceptor.url, limits=limits, timeout=timeout
        ) as client:
            for _ in range(10):
                with pytest.raises(PinMismatchError):
                    await client.get(server.url())
            pinner.replace(Policy((PinSet(name=HOST, pins=pins[HOST], mode="report-only"),)))
            for _ in range(2):
                assert (await client.get(server.url())).status_code == 200

    @pytest.mark.asyncio
    async def test_mounts(self, pins, server, attacker, trust) -> None:
        """Mounts without pins are refused, pinned ones and None are not."""
        plain = httpx.AsyncHTTPTransport(verify=trust)
        with pytest.raises(ContextError, match=r"mounts\['https://'\].*AsyncHTTPTransport"):
            PinnedAsyncClient(pins, mounts={"https://": plain})
        mounted = PinnedAsyncTransport(pins, verify=trust)
        async with PinnedAsyncClient(pins, verify=trust, mounts={"https://": mounted, "all://x": None}) as client:
            with pytest.raises(PinMismatchError):
                await client.get(attacker.url())

    def test_socks_without_the_extra(self, pins, monkeypatch) -> None:
        """Without the package that SOCKS needs, the error names the extra."""
        monkeypatch.setitem(__import__("sys").modules, "python_socks", None)
        with pytest.raises(ContextError, match="two ways to the origin"):
            PinnedAsyncTransport(pins, proxy="http://proxy.test:3128", uds="/run/origin.sock")
        with pytest.raises(ContextError, match=r"pinset\[socks\]"):
            PinnedAsyncTransport(pins, proxy="socks5://127.0.0.1:1")

    def test_unknown_proxy_scheme(self, pins) -> None:
        """A proxy protocol that cannot be pinned is refused at construction."""
        with pytest.raises(ValueError, match="scheme"):
            PinnedAsyncTransport(pins, proxy="ftp://127.0.0.1:1")


class TestConstruction:
    """What would open a road without pins is refused when the client is made."""

    def test_transport_keyword(self, pins) -> None:
        """``transport=`` belongs to httpx.AsyncClient."""
        with pytest.raises(ContextError, match=r"httpx\.AsyncClient\(transport="):
            PinnedAsyncClient(pins, transport=httpx.AsyncHTTPTransport())

    @pytest.mark.parametrize("verify", [True, False, "roots.pem"])
    def test_verify_keyword(self, pins, verify) -> None:
        """``verify`` is a context or nothing: pins never replace verification."""
        with pytest.raises(ContextError, match="never replace"):
            PinnedAsyncClient(pins, verify=verify)
        with pytest.raises(ContextError, match="never replace"):
            PinnedAsyncTransport(pins, verify=verify)

    def test_weak_and_foreign_contexts(self, pins) -> None:
        """Contexts that do not verify, or ignore our class, are refused."""
        weak = ssl.create_default_context()
        weak.check_hostname = False
        with pytest.raises(ContextError, match="host names"):
            PinnedAsyncClient(pins, verify=weak)
        with pytest.raises(ContextError):
            PinnedAsyncClient(pins, verify=truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def test_injected_truststore(self, pins) -> None:
        """After truststore.inject_into_ssl the default context cannot be pinned, and nothing is sent unpinned."""
        truststore.inject_into_ssl()
        try:
            with pytest.raises(ContextError):
                PinnedAsyncClient(pins)
        finally:
            truststore.extract_from_ssl()

    def test_empty_and_odd_pins(self) -> None:
        """Nothing to pin is an error, not a client without pins."""
        for pins in ({}, {HOST: []}, {HOST: [BACKUP]}, "sha256/AAAA", None):
            with pytest.raises(PolicyError):
                PinnedAsyncClient(pins)

    def test_keywords_are_those_of_httpx(self) -> None:
        """Every keyword of httpx.AsyncClient is taken, with the same default where it has one."""
        import inspect

        ours = inspect.signature(PinnedAsyncClient.__init__).parameters
        theirs = inspect.signature(httpx.AsyncClient.__init__).parameters
        assert set(theirs) <= set(ours)
        for name, parameter in theirs.items():
            if name not in ("self", "verify"):
                assert ours[name].default == parameter.default, name
        ours = inspect.signature(PinnedAsyncTransport.__init__).parameters
        theirs = inspect.signature(httpx.AsyncHTTPTransport.__init__).parameters
        for name, parameter in theirs.items():
            if name not in ("self", "verify"):
                assert ours[name].default == parameter.default, name

    def test_roads_are_checked(self, pins, monkeypatch) -> None:
        """If httpx made its transports another way, the client would notice."""
        monkeypatch.setattr(PinnedAsyncClient, "_init_transport", lambda self, **kwargs: httpx.AsyncHTTPTransport())
        with pytest.raises(ContextError, match="AsyncHTTPTransport, which is not pinned"):
            PinnedAsyncClient(pins)

    def test_one_context_two_policies(self, pins, trust) -> None:
        """A caller's context serves two clients with two policies, and two pools with one choice of HTTP version."""
        PinnedAsyncClient(pins, verify=trust)
        PinnedAsyncClient({"other.test": pins[HOST]}, verify=trust)
        with pytest.raises(ContextError, match="http2="):
            PinnedAsyncClient(pins, verify=trust, http2=True)


@pytest.mark.asyncio
async def test_two_policies_on_one_context(pins, leaf, server, trust) -> None:
    """Each client judges by its own policy, and the context stays plain for everybody else."""
    wrong = {HOST: [BACKUP, "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="]}
    async with (
        PinnedAsyncClient(pins, verify=trust) as right,
        PinnedAsyncClient(wrong, verify=trust) as other,
        httpx.AsyncClient(verify=trust) as stock,
    ):
        assert (await right.get(server.url())).status_code == 200
        with pytest.raises(PinMismatchError):
            await other.get(server.url())
        assert (await right.get(server.url())).status_code == 200
        assert (await stock.get(server.url())).status_code == 200


@pytest.mark.asyncio
async def test_bare_context_of_another_pinner_is_refused(pins, server, genuine) -> None:
    """A context that carries a policy cannot be given another; with the same Pinner it can."""
    pinner = Pinner(pins)
    context = pinned_ssl_context(pinner, cadata=genuine.root_pem)
    async with PinnedAsyncClient(pinner, verify=context) as client:
        assert (await client.get(server.url())).status_code == 200
    with pytest.raises(ContextError, match="policy of its own"):
        PinnedAsyncClient(pins, verify=context)


@pytest.mark.asyncio
async def test_context_that_becomes_bare_later(pins, server, genuine) -> None:
    """Should the policies come to differ after construction, the connection is refused and its socket closed."""
    from pinset import _enforcement, _tls

    context = genuine.client_context()
    async with PinnedAsyncClient(pins, verify=context) as client:
        _tls.bare_contexts[context] = _enforcement.Enforcement(Pinner(pins), AssertionError)
        with pytest.raises(ContextError, match="policy of its own"):
            await client.get(server.url())


@pytest.mark.asyncio
async def test_replaced_policy_retires_an_idle_connection(pins, leaf, server, trust) -> None:
    """After replace() the next request goes out on a fresh connection, judged by the new policy."""
    pinner = Pinner(pins)
    async with PinnedAsyncClient(pinner, verify=trust) as client:
        first = await client.get(server.url())
        pinner.replace({HOST: [BACKUP, leaf.pin]})
        second = await client.get(server.url())
        assert second.extensions["pinset"].rule is not first.extensions["pinset"].rule
        pinner.replace({HOST: [BACKUP, "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="]})
        requests = len(server.seen.requests)
        with pytest.raises(PinMismatchError):
            await client.get(server.url())
    assert len(server.seen.requests) == requests


@pytest.mark.asyncio
async def test_a_response_without_a_verdict_is_refused(pins, server, trust) -> None:
    """Should a connection ever come about without our stream, its response is not handed out."""
    import httpcore

    transport = PinnedAsyncTransport(pins, verify=trust)
    transport._pool = httpcore.AsyncConnectionPool(ssl_context=trust)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(UnverifiedChainError, match="without a verdict"):
            await client.get(server.url())


@pytest.mark.asyncio
async def test_errors_of_connecting_are_those_of_httpx(pins, trust, leaf) -> None:
    """An untrusted certificate, a dead port and a silent server give the errors that httpx documents."""
    stranger = Authority("Stranger").issue(HOST)
    with TLSServer(stranger.server_context()) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(server.url())
    async with PinnedAsyncClient(pins, verify=trust) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://{HOST}:{server.port}/")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with PinnedAsyncClient(pins, verify=trust, timeout=0.1) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get(f"https://{HOST}:{silent.getsockname()[1]}/")


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["head", "body", "close"])
async def test_server_breaks_off(when, pins, leaf, trust) -> None:
    """A pinned server that closes early gives httpx errors, never a hang."""
    answers = {
        "head": b"HTTP/1.1 200 O",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "close": b"",
    }
    context = leaf.server_context()

    class Closing(TLSServer):
        def _receive_head(self, tls):
            if super()._receive_head(tls):
                tls.sendall(answers[when])
            return b""

    with Closing(context) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url())


@pytest.mark.asyncio
async def test_large_bodies_both_ways(pins, leaf, trust) -> None:
    """A streamed upload and a large download arrive whole."""
    body = bytes(range(256)) * 8192
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def upload():
        for _ in range(64):
            yield b"x" * 16384

    with TLSServer(leaf.server_context(), respond=lambda _: response) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            answer = await client.get(server.url())
            assert answer.content == body
    received = []

    class Reading(TLSServer):
        def _receive_head(self, tls):
            if received:
                return b""
            head = super()._receive_head(tls)
            size = len(head)
            data = self.seen.application_data
            while b"0\r\n\r\n" not in data[-5:]:
                data += tls.recv(65536)
            received.append(data[size:])
            return head

    with Reading(leaf.server_context()) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            assert (await client.post(server.url(), content=upload())).status_code == 200
    assert received[0].count(b"x") >= 64 * 16384


def test_errors_keep_host_and_verdict_when_pickled() -> None:
    """A refusal can leave the process, for a task queue or a test runner."""
    error = pinset.httpx.PinMismatchError("text", host=HOST)
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, RefusedError)
    assert (str(copy), copy.host) == ("text", HOST)


def test_trustme_server_on_trio(tmp_path: Path) -> None:
    """Certificates that we did not make: trustme's CA and trio's own TLS server."""
    ca = trustme.CA()
    cert = ca.issue_cert(HOST)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    cert.configure_cert(server_context)
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    pin = str(pinset.Pin.from_certificate(cert.cert_chain_pems[0].bytes()))

    async def serve(stream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await stream.receive_some(1)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                functools.partial(trio.serve_ssl_over_tcp, serve, 0, server_context, host="127.0.0.1")
            )
            port = listeners[0].transport_listener.socket.getsockname()[1]
            async with PinnedAsyncClient({HOST: [pin, BACKUP]}, verify=trust) as client:
                assert (await client.get(f"https://{HOST}:{port}/")).text == "ok"
            nursery.cancel_scope.cancel()

    trio.run(main)
