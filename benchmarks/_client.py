"""
The measured client: a process that makes requests when the driver says so.

The first line on standard input is its configuration (`benchmarks.wire` makes it), and each further line an order: ``kind`` (cold, warm, idle,
client), ``requests``, ``concurrency`` and ``limit``. It answers every line with one line of JSON. It never measures
start-up: the event loop lives as long as the process, and each sample begins with requests that are not counted and a
garbage collection. It runs in any environment that has httpx; pinset is imported for the pinned variants only.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import ssl
import sys
import time
from typing import Any

import httpx


def main() -> None:
    """
    Serve orders until standard input ends.
    """
    config = json.loads(sys.stdin.readline())
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):  # default trust is what pip installs
        os.environ.pop(name, None)
    if config["variant"].startswith("pinned"):
        import pinset.httpx  # noqa: F401 - not in the middle of a sample
    factory = None
    if config["loop"] == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        clients: dict[tuple[str, int], httpx.AsyncClient] = {}
        _answer({"versions": httpx.__version__})
        for line in sys.stdin:
            order = json.loads(line)
            _answer(runner.run(_sample(config, clients, order)))
        for client in clients.values():
            runner.run(client.aclose())


def _make(config: dict[str, Any], limits: httpx.Limits, **trust: Any) -> httpx.AsyncClient:
    if config["variant"].startswith("pinned"):
        from pinset import PinnedAsyncClient

        resume = config["variant"] == "pinned"
        return PinnedAsyncClient(config["pins"], limits=limits, session_resumption=resume, timeout=60, **trust)
    return httpx.AsyncClient(limits=limits, timeout=60, **trust)


async def _sample(
    config: dict[str, Any], clients: dict[tuple[str, int], httpx.AsyncClient], order: dict[str, Any]
) -> dict[str, Any]:
    kind, limit, concurrency = order["kind"], order.get("limit", 0), order.get("concurrency", 1)
    if kind == "client":
        return await _make_clients(config, order["requests"])
    if kind == "warm":
        async with _client(config, kind, limit) as client:
            return await _measured(config, client, order["requests"], concurrency, rush=concurrency)
    if (kind, limit) not in clients:
        clients[kind, limit] = _client(config, kind, limit)
    return await _measured(config, clients[kind, limit], order["requests"], concurrency, rush=limit)


async def _measured(
    config: dict[str, Any], client: httpx.AsyncClient, requests: int, concurrency: int, *, rush: int
) -> dict[str, Any]:
    """A rush of requests at once, which opens connections, and then the flow that is measured."""
    # How many connections a pool has decides what stock httpx takes for a request. From an empty pool a rush makes as
    # many as it may; from one with an idle connection it would make a number that nobody can foretell.
    responses = await asyncio.gather(*(client.get(config["url"]) for _ in range(rush or 1)))
    if (responses[0].http_version == "HTTP/2") is not config["http2"]:
        raise RuntimeError("this is not the version of HTTP that was to be measured")
    gc.collect()
    return await _steady(client, config["url"], requests, concurrency)


def _client(config: dict[str, Any], kind: str, limit: int) -> httpx.AsyncClient:
    # What `create_default_context` makes, with one root; a context of its own for each client.
    context = ssl.create_default_context(cafile=config["roots"])
    return _make(config, _limits(kind, limit), verify=context, trust_env=False, http2=config["http2"])


def _limits(kind: str, limit: int) -> httpx.Limits:
    if kind == "cold":  # nothing is kept alive, so every request makes its connection
        return httpx.Limits(max_connections=100, max_keepalive_connections=0)
    if limit:
        return httpx.Limits(max_connections=limit, max_keepalive_connections=limit, keepalive_expiry=None)
    return httpx.Limits(max_connections=100, max_keepalive_connections=20)


async def _steady(client: httpx.AsyncClient, url: str, requests: int, concurrency: int) -> dict[str, Any]:
    """
    Make requests, so many at a time, and measure from the end of the first few to the end of the last one counted.

    Connections are opened by the first and closed after the last: with httpx's default limits a pool that rests keeps 20.
    """
    first = 2 * concurrency
    done = resumed = 0
    begin = end = (0.0, 0.0)
    own: list[float] = []

    async def work() -> None:
        nonlocal done, resumed, begin, end
        while done < first + requests:
            sent = time.perf_counter()
            response = await client.get(url)
            response.raise_for_status()
            done += 1
            if first < done <= first + requests:
                own.append(round((time.perf_counter() - sent) * 1e6, 1))
                stream = response.extensions["network_stream"]
                resumed += bool(stream.get_extra_info("ssl_object").session_reused)
            if done == first:
                begin = _cpu(), time.perf_counter()
            elif done == first + requests:
                end = _cpu(), time.perf_counter()

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return {**_figures(begin, end, requests, resumed), "own": own}


async def _make_clients(config: dict[str, Any], number: int) -> dict[str, float]:
    """Make clients with default trust, while others exist."""
    limits = httpx.Limits()
    async with _make(config, limits):
        gc.collect()
        begin = _cpu(), time.perf_counter()
        made = [_make(config, limits) for _ in range(number)]
        figures = _figures(begin, (_cpu(), time.perf_counter()), number, 0)
        for client in made:
            await client.aclose()
    return figures


def _figures(begin: tuple[float, float], end: tuple[float, float], number: int, resumed: int) -> dict[str, float]:
    return {
        "cpu": round((end[0] - begin[0]) / number * 1e6, 2),
        "wall": round((end[1] - begin[1]) / number * 1e6, 2),
        "resumed": round(resumed / number, 4),
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
