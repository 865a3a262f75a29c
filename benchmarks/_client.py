"""
The measured client: a process that makes requests when the driver says so.

The first line on standard input is its configuration, and each further line an order ``{"kind": …, "requests": …}``. It
answers every line with one line of JSON. It never measures start-up: clients, contexts and event loop live as long as
the process, and each sample begins with one request that is not counted and a garbage collection.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import ssl
import sys
import time
from typing import Any

import httpx

from pinset import PinnedAsyncClient


def main() -> None:
    """
    Serve orders until standard input ends.
    """
    config = json.loads(sys.stdin.readline())
    with asyncio.Runner() as runner:
        clients = {
            # Nothing is kept alive, so every request makes its connection.
            "cold": _make(config, httpx.Limits(max_connections=1, max_keepalive_connections=0)),
            "warm": _make(config, httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)),
        }
        _answer(runner.run(_describe(clients["cold"], config["url"])))
        for line in sys.stdin:
            order = json.loads(line)
            _answer(runner.run(_sample(clients[order["kind"]], config["url"], order["requests"])))
        for client in clients.values():
            runner.run(client.aclose())


def _make(config: dict[str, Any], limits: httpx.Limits) -> httpx.AsyncClient:
    # What `Authority.client_context` makes: the defaults of `ssl`, and one root.
    context = ssl.create_default_context(cadata=config["root"])
    if config["variant"] == "pinned":
        return PinnedAsyncClient(config["pins"], verify=context, limits=limits, trust_env=False)
    return httpx.AsyncClient(verify=context, limits=limits, trust_env=False)


async def _describe(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url) as response:
        tls = response.extensions["network_stream"].get_extra_info("ssl_object")
        body = await response.aread()
        return {
            "tls": tls.version(),
            "cipher": tls.cipher()[0],
            "body": len(body),
            "verdict": str(response.extensions["pinset"].outcome) if "pinset" in response.extensions else None,
        }


async def _sample(client: httpx.AsyncClient, url: str, requests: int) -> dict[str, float]:
    await client.get(url)
    gc.collect()
    cpu, wall = _cpu(), time.perf_counter()
    for _ in range(requests):
        response = await client.get(url)
    spent = _cpu() - cpu, time.perf_counter() - wall
    response.raise_for_status()
    return {"cpu": spent[0] / requests * 1e6, "wall": spent[1] / requests * 1e6}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
