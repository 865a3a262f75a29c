"""
nginx ends a connection after so many requests, with GOAWAY: stock clients lose a request, ours loses none.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import httpx2
import pytest
from leftovers import LOOPS, Watch, collector_off, counts, untidy

import pinset
import pinset.httpx2

pytestmark = pytest.mark.integration


@pytest.fixture
def server(lab, nginx, tmp_path, request):
    """An nginx that allows as many requests per connection as the test's parameter says."""
    chain, key = lab.origins["ec", "TLSv1.3", "genuine"].identity.write(tmp_path, "goaway")
    with nginx(f"""
server {{
    listen PORT0 ssl http2;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    keepalive_requests {request.param};
    location / {{ return 200 "hello"; }}
}}""") as running:
        yield running


async def failures(transport, url, *, total, workers):
    """How many of *total* requests by *workers* in parallel fail."""
    failed, left = 0, iter(range(total))

    async def work():
        nonlocal failed
        for _ in left:
            try:
                response = await client.get(url)
                assert response.http_version == "HTTP/2"
            except httpx.TransportError:
                failed += 1

    async with httpx.AsyncClient(transport=transport, timeout=60) as client:
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                group.start_soon(work)
        if isinstance(transport, pinset.PinnedAsyncTransport):
            queued, active, _, connecting = counts(transport)
            assert (queued, active, connecting) == (0, 0, 0)
    return failed


@pytest.mark.parametrize(
    ("loop", "server", "total", "workers"),
    [
        pytest.param("asyncio", 1000, 2500, 1, id="asyncio-one-after-the-other"),
        pytest.param("asyncio", 1000, 2500, 10, id="asyncio-ten-workers"),
        *(
            pytest.param(loop, *numbers, id=f"{loop}-{name}")
            for loop in LOOPS
            for name, numbers in {
                "one-after-the-other": (100, 250, 1),
                "ten-workers": (100, 500, 10),
                "sixty-at-once": (3, 60, 60),
                "sixty-workers": (3, 180, 60),
                "one-request-a-connection": (1, 30, 10),
            }.items()
            if (loop, numbers[0]) != ("asyncio", 100)
        ),
    ],
    indirect=["server"],
)
def test_no_request_is_lost_at_goaway(lab, server, loop, total, workers):
    """Every GET is answered."""
    pins = lab.pins(lab.origins["ec", "TLSv1.3", "genuine"])

    async def run_stock():
        return await failures(
            httpx.AsyncHTTPTransport(verify=lab.context(), http2=True),
            server.url("/stock"),
            total=total,
            workers=workers,
        )

    async def run_ours():
        watch = Watch()
        transport = pinset.PinnedAsyncTransport(pins, verify=lab.context(), http2=True)
        lost = await failures(transport, server.url("/ours"), total=total, workers=workers)
        await watch.assert_nothing_left()
        return lost

    if loop == "asyncio":
        with untidy():
            assert LOOPS[loop](run_stock) > 0
    with collector_off():
        assert LOOPS[loop](run_ours) == 0
    # What nginx refused, it has not seen: each request is in its log once.
    assert len(server.wait_for("/ours", total)) == total


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("server", "total", "threads"),
    [
        pytest.param(1000, 2500, 1, id="one-after-the-other"),
        pytest.param(1000, 2500, 10, id="ten-threads"),
        pytest.param(3, 60, 30, id="thirty-at-once"),
    ],
    indirect=["server"],
)
def test_no_request_of_a_thread_is_lost(lab, server, library, total, threads):
    """The same for the blocking clients."""
    origin = lab.origins["ec", "TLSv1.3", "genuine"]
    module = {"httpx": httpx, "httpx2": httpx2}[library]

    def lost(client, path):
        def failed(_):
            try:
                assert client.get(server.url(path)).http_version == "HTTP/2"
            except module.TransportError:
                return True
            return False

        with client, ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(failed, range(total)))

    if threads == 1 and library == "httpx":  # httpx2 has mended that; for more threads see test_threads.py
        with untidy():
            assert lost(httpx.Client(verify=lab.context(), http2=True, timeout=60), "/stock") > 0
    pinned = getattr(pinset, library).PinnedClient
    client = pinned(lab.pins(origin), verify=lab.context(), http2=True, timeout=60)
    assert lost(client, "/ours") == 0
    assert counts(client._transport) == (0, 0, 0, 0)
    assert len(server.wait_for("/ours", total)) == total
