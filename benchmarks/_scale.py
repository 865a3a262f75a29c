"""
One figure of `benchmarks.scale`, in a process that ends with it: the order comes as JSON, and so does the answer.

Memory is the growth of the resident set after a garbage collection, divided by how many things it is of. What the
allocator has in reserve is small against the numbers that are held, and counted with the first of them.
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
from pathlib import Path
from typing import Any

import httpx

from pinset import Pin, PinKind, PinnedAsyncClient, Pinner, PinSet, Policy
from pinset._contexts import _ssl_error, prepare_context
from pinset._enforcement import Enforcement
from pinset._sessions import SessionStore
from pinset._tls import PinnedSSLObject

_PINS = (Pin(PinKind.SPKI, b"a" * 32), Pin(PinKind.SPKI, b"b" * 32))


def resident() -> int:
    """
    Bytes of the resident set, after a garbage collection.
    """
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def policy(order: dict[str, Any]) -> dict[str, float]:
    """
    Making a policy and putting it in force, and its memory.
    """
    hosts = order["hosts"]
    pinner = Pinner(Policy.from_mapping({"a.example": _PINS}))
    before = resident()
    begin = time.process_time()
    made = Policy(tuple(PinSet(name=f"h{number:07d}.bench.example", pins=_PINS) for number in range(hosts)))
    spent = time.process_time() - begin
    begin = time.process_time()
    pinner.replace(made)
    replaced = time.process_time() - begin
    found = {"making it, CPU ms": round(spent * 1e3, 3), "putting it in force, CPU ms": round(replaced * 1e3, 4)}
    if hosts >= 1_000:  # fewer fit in what the allocator has in reserve
        found["bytes per host"] = round((resident() - before) / hosts, 1)
    return found


async def connections(order: dict[str, Any]) -> dict[str, float]:
    """
    The memory of an idle connection in the pool, the client's and OpenSSL's.
    """
    held = order["held"]
    context = ssl.create_default_context(cafile=order["roots"])
    limits = httpx.Limits(max_connections=held + 10, max_keepalive_connections=held + 10, keepalive_expiry=None)
    if order["client"] == "pinned":
        client: httpx.AsyncClient = PinnedAsyncClient(
            {order["host"]: order["pins"]}, verify=context, limits=limits, trust_env=False, timeout=60
        )
    else:
        client = httpx.AsyncClient(verify=context, limits=limits, trust_env=False, timeout=60)
    async with client:
        await client.get(order["url"])
        before = resident()
        await _hold(client, order["url"], held)
        return {"bytes per connection": round((resident() - before) / (held - 1), 1)}


async def _hold(client: httpx.AsyncClient, url: str, held: int) -> None:
    """Open connections by responses that are all under way at once, and close no connection."""
    opened = [await client.send(client.build_request("GET", url), stream=True) for _ in range(held)]
    for response in opened:
        await response.aread()
        await response.aclose()


async def updates(order: dict[str, Any]) -> dict[str, float]:
    """
    Replaced policies per second, each followed by one request over a pooled connection that is judged anew.
    """
    held, number = order["held"], order["updates"]
    context = ssl.create_default_context(cafile=order["roots"])
    limits = httpx.Limits(max_connections=held + 10, max_keepalive_connections=held + 10, keepalive_expiry=None)
    policies = [
        Policy.from_mapping({order["host"]: order["pins"], f"{name}.example": _PINS}) for name in ("one", "other")
    ]
    pinner = Pinner(policies[0])
    async with PinnedAsyncClient(pinner, verify=context, limits=limits, trust_env=False, timeout=60) as client:
        await _hold(client, order["url"], held)
        spent = {"replace": 0.0, "request": 0.0}
        for turn in range(number):
            begin = time.process_time()
            pinner.replace(policies[turn % 2])
            spent["replace"] += time.process_time() - begin
            begin = time.process_time()
            await client.get(order["url"])
            spent["request"] += time.process_time() - begin
    return {
        "updates per second of CPU": round(number / max(spent["replace"], 1e-9)),
        "the request after one, CPU µs": round(spent["request"] / number * 1e6, 1),
    }


def sessions(order: dict[str, Any]) -> dict[str, float]:
    """
    The memory of a TLS 1.3 session that is kept with its chain, one per port of one server.
    """
    import trustme

    root = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = root.create_child_ca().issue_cert("a.example")
    leaf.configure_cert(server)
    pinner = Pinner({"a.example": [str(Pin.from_certificate(leaf.cert_chain_pems[0].bytes())), str(_PINS[1])]})
    context = ssl.create_default_context(cadata=root.cert_pem.bytes().decode())
    prepare_context(context, pinner)
    number = order["sessions"]
    store = SessionStore(max_sessions=number + 1)
    _earn(context, server, Enforcement(pinner, _ssl_error, sessions=store, port=1))
    before = resident()
    for port in range(2, number + 2):
        _earn(context, server, Enforcement(pinner, _ssl_error, sessions=store, port=port))
    if len(store) != number + 1:
        raise RuntimeError(f"{len(store)} sessions were kept, not {number + 1}")
    return {"bytes per session": round((resident() - before) / number, 1)}


def _earn(context: ssl.SSLContext, server_context: ssl.SSLContext, enforcement: Enforcement) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(outgoing, incoming, server_side=True)
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
    assert isinstance(client, PinnedSSLObject)
    client.enforce(enforcement)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (client, server):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    server.write(b"!")
    client.read(1)


def main() -> None:
    """
    Take the order and answer it.
    """
    order = json.loads(sys.stdin.read())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192 if most == resource.RLIM_INFINITY else min(8192, most), most))
    match order["measure"]:
        case "policy":
            answer = policy(order)
        case "connections":
            answer = asyncio.run(connections(order))
        case "updates":
            answer = asyncio.run(updates(order))
        case _:
            answer = sessions(order)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
