"""
Proxies that people run: the leg to the origin is pinned through every one of them.
"""

from __future__ import annotations

import httpx
import pytest

import pinset

pytestmark = pytest.mark.integration

PROXIES = ["tinyproxy", "squid", "squid_https", "microsocks", "dante"]
proxies = pytest.mark.parametrize("proxy", PROXIES, indirect=True)
versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
_HANDSHAKE, _CLIENT_HELLO = 22, 1


@pytest.mark.asyncio
@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@versions
@proxies
async def test_right_pin(lab, proxy, version, http2):
    """The request goes through the proxy and comes back with the verdict on the origin."""
    origin = lab.origins["ec", version, "genuine"]
    path, since = lab.path("proxied"), proxy.log.size()
    async with lab.pinned(lab.pins(origin), proxy=proxy.proxy(), http2=http2) as client:
        response = await client.get(origin.url(path))
    assert response.status_code == 200
    assert response.extensions["pinset"].outcome is pinset.Outcome.MATCHED
    assert origin.request(path)["version"] == version
    proxy.wait_for_use(origin, since)


@pytest.mark.asyncio
@versions
@proxies
async def test_rogue_origin(lab, proxy, version):
    """A rogue origin behind the proxy deceives the stock client and gets no request of ours."""
    genuine, rogue = (lab.origins["rsa", version, side] for side in ("genuine", "rogue"))
    since = proxy.log.size()
    await lab.assert_refused(lab.pins(genuine), rogue, proxy=proxy.proxy())
    proxy.wait_for_use(rogue, since)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "proxy",
    ["tinyproxy", "squid", "squid_https", "microsocks", "dante"],
    indirect=True,
)
async def test_refusals_leave_the_pool_usable(lab, proxy):
    """More refusals than the pool has places, and the next genuine request still gets through."""
    genuine, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=2)
    timeout = httpx.Timeout(20, pool=2)
    async with lab.pinned(lab.pins(genuine), proxy=proxy.proxy(), limits=limits, timeout=timeout) as client:
        for _ in range(5):
            with pytest.raises(pinset.PinMismatchError):
                await client.get(rogue.url(lab.path("full")))
        assert (await client.get(genuine.url(lab.path("free")))).status_code == 200


@pytest.mark.asyncio
async def test_the_leg_to_an_https_proxy_is_verified_by_its_own_context(lab, squid_https):
    """A context that does not trust the proxy's authority stops at the proxy, with an error that is not ours."""
    origin = lab.origins["ec", "TLSv1.3", "genuine"]
    stranger = httpx.Proxy(squid_https.url, ssl_context=lab.context())
    path = lab.path("stranger")
    async with lab.pinned(lab.pins(origin), proxy=stranger) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await client.get(origin.url(path))
    assert not isinstance(caught.value, pinset.PinsetError)
    assert not origin.has_seen(path)


@pytest.mark.asyncio
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["tinyproxy", "squid", "microsocks", "dante"], indirect=True)
async def test_environment_proxy(lab, monkeypatch, proxy, variable):
    """A proxy of the environment is used, its log says so, and the origin behind it is pinned."""
    monkeypatch.setenv(variable, proxy.url)
    genuine, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))
    pins, path, since = lab.pins(genuine), lab.path("environment"), proxy.log.size()
    async with lab.pinned(pins) as client:
        response = await client.get(genuine.url(path))
    assert response.status_code == 200
    assert response.extensions["pinset"].outcome is pinset.Outcome.MATCHED
    proxy.wait_for_use(genuine, since)
    since = proxy.log.size()
    await lab.assert_refused(pins, rogue)
    proxy.wait_for_use(rogue, since)


@pytest.mark.asyncio
@versions
async def test_wss_through_socks_is_never_in_the_clear(lab, microsocks, relay, tls_records, version):
    """What leaves the client for a wss URL is the talk with the proxy and then TLS, and the request is inside."""
    origin = lab.origins["ec", version, "genuine"]
    path = lab.path("wss")
    with relay(microsocks.port) as wire:
        async with lab.pinned(lab.pins(origin), proxy=f"socks5://127.0.0.1:{wire.port}") as client:
            response = await client.get(origin.url(path, "wss"))
        (sent,) = wire.captured()
    assert response.status_code == 200
    assert response.request.url.scheme == "wss"
    assert response.extensions["pinset"].outcome is pinset.Outcome.MATCHED
    assert origin.request(path)["version"] == version
    socks = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09localhost" + origin.port.to_bytes(2, "big")
    assert sent.startswith(socks)
    first, *others = tls_records(sent.removeprefix(socks))
    assert (first[0], first[1][0]) == (_HANDSHAKE, _CLIENT_HELLO)
    assert others
    assert path.encode() not in sent


@pytest.mark.asyncio
@versions
async def test_wss_to_a_rogue_origin_through_socks(lab, microsocks, relay, tls_records, version):
    """A wss URL whose origin is not pinned is refused after one ClientHello."""
    genuine, rogue = (lab.origins["ec", version, side] for side in ("genuine", "rogue"))
    path = lab.path("wss")
    with relay(microsocks.port) as wire:
        async with lab.pinned(lab.pins(genuine), proxy=f"socks5://127.0.0.1:{wire.port}") as client:
            with pytest.raises(pinset.PinMismatchError):
                await client.get(rogue.url(path, "wss"))
        (sent,) = wire.captured()
    socks = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09localhost" + rogue.port.to_bytes(2, "big")
    ((content, message),) = tls_records(sent.removeprefix(socks))
    assert (content, message[0]) == (_HANDSHAKE, _CLIENT_HELLO)
    assert not rogue.has_seen(path)
