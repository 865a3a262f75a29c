"""
Every road, protocol, TLS version, event loop, thread and flavour of httpx: the right pin answers, and the wrong one says nothing to the origin.
"""

from __future__ import annotations

import httpx
import pytest
from leftovers import Watch, collector_off
from ways import WAYS

import pinset

pytestmark = pytest.mark.integration

ROADS = ["direct", "tinyproxy", "squid", "squid_https", "microsocks", "dante", "environment"]
_HANDSHAKE, _CLIENT_HELLO, _APPLICATION_DATA = 22, 1, 23

ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
protocols = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
roads = pytest.mark.parametrize("road", ROADS, indirect=True)


@pytest.fixture
def road(request, monkeypatch):
    """The keywords that send a client along the road, and the proxy on it, if any."""
    if request.param == "direct":
        return {}, None
    if request.param == "environment":
        proxy = request.getfixturevalue("tinyproxy")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        return {}, proxy
    proxy = request.getfixturevalue(request.param)
    return {"proxy": proxy.proxy()}, proxy


async def get(client, url):
    """One GET with *client*, which is closed then."""
    async with client:
        return await client.get(url)


@roads
@ways
@versions
@protocols
def test_right_pin(lab, road, way, version, http2):
    """200, in the version of HTTP that was asked for, with the verdict on the origin."""
    options, proxy = road
    origin = lab.origins["ec", version, "genuine"]
    path, since = lab.path("right"), proxy and proxy.log.size()

    async def run():
        watch = Watch()
        response = await get(lab.pinned(lab.pins(origin), way=way, http2=http2, **options), origin.url(path))
        await watch.assert_nothing_left()
        return response

    with collector_off():
        response = way.run(run)
    assert response.status_code == 200
    assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert response.extensions["pinset"].outcome is pinset.Outcome.MATCHED
    seen = origin.request(path)
    assert seen["version"] == version
    assert seen["protocol"] == ("HTTP/2.0" if http2 else "HTTP/1.1")
    if proxy is not None:
        proxy.wait_for_use(origin.port, since)


@roads
@ways
@versions
@protocols
def test_wrong_pin(lab, road, way, version, http2, relay, tls_records):
    """A trusted origin with another key gets a ClientHello, and the stock client's request."""
    options, proxy = road
    genuine, rogue = (lab.origins["ec", version, side] for side in ("genuine", "rogue"))
    refused, taken = lab.path("wrong"), lab.path("stock")
    with relay(rogue.port) as wire:
        since = proxy and proxy.log.size()
        url = f"https://localhost:{wire.port}"

        async def run():
            watch = Watch()
            with pytest.raises(pinset.PinMismatchError) as caught:
                await get(lab.pinned(lab.pins(genuine), way=way, http2=http2, **options), url + refused)
            await watch.assert_nothing_left()
            return caught.value

        with collector_off():
            error = way.run(run)
        assert error.verdict.outcome is pinset.Outcome.MISMATCHED
        assert isinstance(error, way.library.TransportError)
        (sent,) = wire.captured()
        ((content, message),) = tls_records(sent)
        assert (content, message[0]) == (_HANDSHAKE, _CLIENT_HELLO)
        if way is WAYS["asyncio"] or way is WAYS["threads"]:

            async def run_stock():
                return await get(lab.stock(way=way, http2=http2, **options), url + taken)

            assert way.run(run_stock).status_code == 200
            rogue.request(taken)
            _, sent = wire.captured()
            assert any(kind == _APPLICATION_DATA for kind, _ in tls_records(sent))
        if proxy is not None:
            proxy.wait_for_use(wire.port, since)
    assert not rogue.has_seen(refused)


@ways
@protocols
def test_the_leg_to_an_https_proxy_is_verified_by_its_own_context(lab, squid_https, way, http2):
    """A context that does not trust the proxy's authority stops at the proxy, with an error that is not ours."""
    origin = lab.origins["ec", "TLSv1.3", "genuine"]
    stranger = httpx.Proxy(squid_https.url, ssl_context=lab.context())
    path = lab.path("stranger")

    async def run():
        watch = Watch()
        with pytest.raises(way.library.ConnectError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await get(lab.pinned(lab.pins(origin), way=way, proxy=stranger, http2=http2), origin.url(path))
        assert not isinstance(caught.value, pinset.PinsetError)
        await watch.assert_nothing_left()

    with collector_off():
        way.run(run)
    assert not origin.has_seen(path)


@ways
def test_the_pins_of_an_origin_are_not_asked_about_its_proxy(lab, squid_https, way):
    """Proxy and origin have one name and different keys: pins of the proxy's key refuse the origin behind it."""
    origin = lab.origins["ec", "TLSv1.3", "genuine"]
    proxys = pinset.Pin.from_certificate(squid_https.authority.root)

    async def run():
        with pytest.raises(pinset.PinMismatchError) as caught:
            await get(
                lab.pinned({"localhost": [proxys, lab.backup()]}, way=way, proxy=squid_https.proxy()),
                origin.url(lab.path("proxys")),
            )
        assert caught.value.verdict.chain[0].spki_sha256 == pinset.Pin.from_certificate(origin.identity.chain[0]).digest

    way.run(run)
