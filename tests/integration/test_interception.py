"""
mitmproxy with a certificate authority that the client trusts.
"""

from __future__ import annotations

import pytest

import pinset

pytestmark = pytest.mark.integration


@pytest.mark.asyncio
@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("mode", ["connect", "socks5"])
async def test_interception_under_a_trusted_authority(lab, mitmproxy, mode, kind, http2):
    """mitmproxy reads along with the stock client, and gets no request of ours to pass on."""
    origin = lab.origins[kind, "TLSv1.3", "genuine"]
    for place in ("leaf", "intermediate", "root"):
        error = await lab.assert_refused(
            lab.pins(origin, place), origin, http2=http2, trust=[mitmproxy["authority"]], proxy=mitmproxy[mode]
        )
        assert "Interceptor Root" in error.verdict.chain[-1].subject


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["connect", "socks5"])
async def test_the_interceptor_is_on_the_road(lab, mitmproxy, mode):
    """A client that pins the interceptor gets through: its key, and no other, was what the refusals saw."""
    origin = lab.origins["ec", "TLSv1.3", "genuine"]
    authority = mitmproxy["authority"]
    pin = pinset.Pin.from_certificate(authority.root)
    path = lab.path("intercepted")
    pins = {"localhost": [pin, lab.backup()]}
    async with lab.pinned(pins, trust=[authority], proxy=mitmproxy[mode]) as client:
        assert (await client.get(origin.url(path))).status_code == 200
    origin.request(path)
