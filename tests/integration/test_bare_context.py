"""
``pinned_ssl_context`` under asyncio and under a blocking socket, against nginx.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

import pinset

pytestmark = pytest.mark.integration


async def _by_asyncio(context, port, request):
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(request)
    answer = await reader.read()
    version = writer.get_extra_info("ssl_object").version()
    writer.close()
    await writer.wait_closed()
    return version, answer


async def _by_blocking_socket(context, port, request):
    def talk():
        with (
            socket.create_connection(("localhost", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(request)
            with tls.makefile("rb") as answer:
                return tls.version(), answer.read()

    return await asyncio.to_thread(talk)


roads = pytest.mark.parametrize("talk", [_by_asyncio, _by_blocking_socket], ids=["asyncio", "blocking"])
versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])


def _request(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.asyncio
@pytest.mark.parametrize("place", ["leaf", "intermediate", "root"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@versions
@roads
async def test_right_pin(lab, talk, version, kind, place):
    """With a right pin anywhere in the chain, a bare context talks to nginx."""
    origin = lab.origins[kind, version, "genuine"]
    path = lab.path("bare")
    context = pinset.pinned_ssl_context(lab.pins(origin, place), cadata=lab.cadata())
    spoken, answer = await talk(context, origin.port, _request(path))
    assert spoken == version
    assert answer.startswith(b"HTTP/1.1 200 ")
    origin.request(path)


@pytest.mark.asyncio
@pytest.mark.parametrize("side", ["genuine", "rogue"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@versions
@roads
async def test_wrong_pin(lab, talk, version, kind, side):
    """Wrong pins and a rogue server are refused as ``ssl`` users and pinset users expect; a plain context gets on."""
    genuine, target = (lab.origins[kind, version, which] for which in ("genuine", side))
    pins = lab.pins(genuine, "none" if side == "genuine" else "leaf")
    refused, taken = lab.path("refused"), lab.path("plain")
    context = pinset.pinned_ssl_context(pins, cadata=lab.cadata())
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        await talk(context, target.port, _request(refused))
    assert isinstance(caught.value, pinset.PinMismatchError)
    assert caught.value.host == "localhost"
    assert caught.value.verdict.outcome is pinset.Outcome.MISMATCHED
    spoken, answer = await talk(lab.context(), target.port, _request(taken))
    assert (spoken, answer[:13]) == (version, b"HTTP/1.1 200 ")
    target.request(taken)
    assert not target.has_seen(refused)
