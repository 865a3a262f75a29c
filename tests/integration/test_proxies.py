"""
Proxies of the environment, and what leaves the client on a road through SOCKS. See test_matrix for every road.
"""

from __future__ import annotations

import pytest

import pinset

pytestmark = pytest.mark.integration

versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
_HANDSHAKE, _CLIENT_HELLO = 22, 1


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
    proxy.wait_for_use(genuine.port, since)
    since = proxy.log.size()
    await lab.assert_refused(pins, rogue)
    proxy.wait_for_use(rogue.port, since)


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
