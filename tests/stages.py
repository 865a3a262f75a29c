"""
A request that is given up at every point where it may have to wait, and what has to be true afterwards.
"""

from __future__ import annotations

import asyncio
import ssl

import anyio
import httpx
import pytest
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import HTTP2, Scripted, serve_http1, serve_http2, wait_for

ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)
_LARGE = b"x" * (1 << 24)


def _accept(peer, context, http2):
    peer.stall()


def _hello(peer, context, http2):
    peer.receive()
    peer.stall()


def _flight(peer, context, http2):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(peer.receive())
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    flight = outgoing.read()
    assert len(flight) > 1000, "there are certificates in it"
    peer.send(flight[: len(flight) // 2])
    peer.stall()


def _handshake(peer, context, http2):
    peer.wrap(context)
    peer.stall()


def _head(peer, context, http2):
    peer.wrap(context)
    if http2:
        stream = HTTP2(peer).request().stream
        peer.send((100).to_bytes(3, "big") + b"\x01\x04" + stream.to_bytes(4, "big") + b"\x88")
    else:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    peer.stall()


def _body(peer, context, http2):
    peer.wrap(context)
    if http2:
        http = HTTP2(peer)
        stream = http.request().stream
        http.begin(stream)
        http.data(stream, b"half")
    else:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    peer.stall()


def _upload(peer, context, http2):
    peer.wrap(context)
    if http2:
        HTTP2(peer)
    peer.receive()
    peer.stall()


STAGES = {
    "accept": _accept,
    "hello": _hello,
    "flight": _flight,
    "handshake": _handshake,
    "head": _head,
    "body": _body,
    "upload": _upload,
}
# How a request is given up, on which event loop.
WAYS = {
    "asyncio-cancel": "asyncio",
    "asyncio-scope": "asyncio",
    "asyncio-timeout": "asyncio",
    "uvloop-cancel": "uvloop",
    "uvloop-scope": "uvloop",
    "uvloop-timeout": "uvloop",
    "trio-scope": "trio",
    "trio-timeout": "trio",
}


async def give_up(way, request, has_stalled):
    """Begin *request*, a function, and give it up by *way* once it *has_stalled*."""
    kind = way.partition("-")[2]
    if kind == "timeout":
        with pytest.raises(httpx.TimeoutException):
            await request(timeout=0.1)
        await wait_for(has_stalled, "the stall")
    elif kind == "cancel":
        task = asyncio.ensure_future(request())
        await wait_for(has_stalled, "the stall")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(request)
            await wait_for(has_stalled, "the stall")
            group.cancel_scope.cancel()


def assert_clean_at(way, script, make_transport, context, *, upload=False, http2=False, url=None):
    """
    Requests to a server of *script* are given up by *way*: nothing is left of them, and the one place is free.

    Args:
        way: One of `WAYS`.
        script: What the stalled server does.
        make_transport: From the stalled server, makes the transport with one place to test.
        context: The TLS of a good server.
        upload: Whether the request has a body too large for any buffer.
        http2: What the good server speaks.
        url: From the stalled server, where requests go; by default to itself.
    """
    good = (serve_http2 if http2 else serve_http1)(context)

    async def run():
        with Scripted(script) as stalled, Scripted(good) as server:
            watch = Watch(stalled.port, server.port)
            transport = make_transport(stalled)
            async with httpx.AsyncClient(transport=transport, timeout=20) as client:

                async def request(**options):
                    where = stalled.url() if url is None else url(stalled)
                    await (client.post(where, content=_LARGE, **options) if upload else client.get(where, **options))

                for attempt in (1, 2):
                    await give_up(way, request, lambda attempt=attempt: stalled.stalls >= attempt)
                    queued, active, _, connecting = counts(transport)
                    assert (queued, active, connecting) == (0, 0, 0)
                if url is None:
                    assert (await client.get(server.url())).status_code == 200
                    assert counts(transport) == (0, 0, 1, 0)
                else:
                    await transport.aclose()
                if upload:  # the end lies behind bytes that the server does not read
                    stalled.released.set()
                await wait_for(lambda: stalled.open == 0, "the server to see the end")
                assert stalled.connections == 2
            await watch.assert_nothing_left()

    with collector_off():
        LOOPS[WAYS[way]](run)
