"""
nginx in every combination of key, TLS version and HTTP version: genuine, and impersonated under a trusted authority.
"""

from __future__ import annotations

import pytest

import pinset

pytestmark = pytest.mark.integration

matrix = pytest.mark.parametrize(
    ("kind", "version", "http2"),
    [
        pytest.param(kind, version, http2, id=f"{kind}-{version}-{'h2' if http2 else 'h1'}")
        for kind in ("ec", "rsa")
        for version in ("TLSv1.2", "TLSv1.3")
        for http2 in (False, True)
    ],
)
_SIGNATURE = {"ec": "ECDSA", "rsa": "RSA"}


@pytest.mark.asyncio
@pytest.mark.parametrize("place", ["leaf", "intermediate", "root"])
@matrix
async def test_pin_at_every_place_of_the_chain(lab, kind, version, http2, place):
    """A pin of leaf, intermediate or root lets the request through, and the response carries the verdict."""
    origin = lab.origins[kind, version, "genuine"]
    path, pins = lab.path(place), lab.pins(origin, place)
    async with lab.pinned(pins, http2=http2) as client:
        response = await client.get(origin.url(path))
    assert (response.status_code, response.text) == (200, "hello")
    verdict = response.extensions["pinset"]
    assert isinstance(verdict, pinset.Verdict)
    assert (verdict.host, verdict.outcome, verdict.decision) == (
        "localhost",
        pinset.Outcome.MATCHED,
        pinset.Decision.ALLOW,
    )
    assert list(verdict.matched) == pins["localhost"][:1]
    assert len(verdict.chain) == 3
    seen = origin.request(path)
    assert seen["version"] == version
    assert seen["protocol"] == ("HTTP/2.0" if http2 else "HTTP/1.1")
    if version == "TLSv1.2":
        assert f"-{_SIGNATURE[kind]}-" in seen["cipher"]


@pytest.mark.asyncio
@pytest.mark.parametrize("place", ["leaf", "intermediate", "root"])
@matrix
async def test_rogue_leaf_of_a_trusted_authority(lab, kind, version, http2, place):
    """A server with a leaf of another trusted authority deceives the stock client and gets no request from ours."""
    genuine, rogue = (lab.origins[kind, version, side] for side in ("genuine", "rogue"))
    error = await lab.assert_refused(lab.pins(genuine, place), rogue, http2=http2)
    assert error.host == "localhost"
    assert error.verdict.outcome is pinset.Outcome.MISMATCHED
    assert error.verdict.chain[0].spki_sha256 == pinset.Pin.from_certificate(rogue.identity.chain[0]).digest
    assert error.request.url.port == rogue.port


@pytest.mark.asyncio
@matrix
async def test_wrong_pins_for_a_genuine_server(lab, kind, version, http2):
    """Pins of keys that are not in the chain refuse a server that OpenSSL has nothing against."""
    origin = lab.origins[kind, version, "genuine"]
    await lab.assert_refused(lab.pins(origin, "none"), origin, http2=http2)


@pytest.mark.asyncio
@matrix
async def test_many_requests_on_one_connection(lab, kind, version, http2):
    """Later requests on a kept connection carry the verdict of its handshake."""
    origin = lab.origins[kind, version, "genuine"]
    async with lab.pinned(lab.pins(origin), http2=http2) as client:
        verdicts = [(await client.get(origin.url(lab.path("again")))).extensions["pinset"] for _ in range(5)]
    assert all(verdict is verdicts[0] for verdict in verdicts)
