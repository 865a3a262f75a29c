"""
A refused server learns nothing: no client certificate, and on the wire nothing after the ClientHello.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import pinset

pytestmark = pytest.mark.integration

versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
_HANDSHAKE, _CLIENT_HELLO = 22, 1


async def _by_httpx(lab, pins, identity, port, path, *, http2=False):
    async with lab.pinned(pins, identity=identity, http2=http2) as client:
        return (await client.get(f"https://localhost:{port}{path}")).status_code


async def _by_httpx_h2(lab, pins, identity, port, path):
    return await _by_httpx(lab, pins, identity, port, path, http2=True)


async def _by_asyncio(lab, pins, identity, port, path):
    context = pinset.pinned_ssl_context(pins, cadata=lab.cadata())
    identity.load_into(context)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return int(answer.split(b" ", 2)[1])


roads = pytest.mark.parametrize("send", [_by_httpx, _by_httpx_h2, _by_asyncio], ids=["httpx-h1", "httpx-h2", "asyncio"])


@pytest.mark.asyncio
@roads
@versions
async def test_a_right_pin_sends_the_client_certificate(lab, relay, tls_records, version, send):
    """With a right pin, nginx verifies and logs the client certificate, and the relay sees our whole flight."""
    origin = lab.mutual[version]
    name = lab.path("right")[1:]
    path = f"/{name}"
    pins = lab.pins(lab.origins["ec", version, "genuine"])
    with relay(origin.port) as wire:
        assert await send(lab, pins, lab.clients.issue(name, client=True), wire.port, path) == 200
        (sent,) = wire.captured()
    seen = origin.request(path)
    assert (seen["version"], seen["client_verify"], seen["client_subject"]) == (version, "SUCCESS", f"CN={name}")
    assert name in origin.errors.text()
    records = tls_records(sent)
    assert records[0][0] == _HANDSHAKE
    assert len(records) > 2
    if version == "TLSv1.2":
        assert name.encode() in sent


@pytest.mark.asyncio
@roads
@versions
async def test_a_wrong_pin_sends_a_client_hello_and_nothing_else(lab, relay, tls_records, version, send):
    """With a wrong pin the server gets one record, the ClientHello; neither log shows the client certificate."""
    origin = lab.mutual[version]
    name = lab.path("wrong")[1:]
    path = f"/{name}"
    pins = lab.pins(lab.origins["ec", version, "genuine"], "none")
    with relay(origin.port) as wire:
        with pytest.raises(pinset.PinMismatchError):
            await send(lab, pins, lab.clients.issue(name, client=True), wire.port, path)
        (sent,) = wire.captured()
    ((content, message),) = tls_records(sent)
    assert (content, message[0]) == (_HANDSHAKE, _CLIENT_HELLO)
    assert len(message) == 4 + int.from_bytes(message[1:4], "big")
    # A later request that is logged: whatever the refused connection left behind is in the logs by now.
    later = lab.path("later")[1:]
    right = lab.pins(lab.origins["ec", version, "genuine"])
    await _by_httpx(lab, right, lab.clients.issue(later, client=True), origin.port, f"/{later}")
    origin.request(f"/{later}")
    assert later in origin.errors.text()
    assert name not in origin.errors.text()
    assert name not in origin.access.text()
