"""
A Python peer: a process that makes requests with one HTTP library, with or without the pinning of that library.

The first line is its configuration: ``peer``, ``pinned``, ``url``, ``roots``, ``pins`` (text, the leaf's first) and
``fingerprint`` (SHA-256 of the leaf certificate, hex). Each further line is an order: ``kind`` (cold, warm), ``requests``
and ``concurrency``, or ``kind`` probe with the fields of a configuration that differ. Peers of other languages do the same.

A client is made as the documentation of its library says, with the roots of the benchmark. A *cold* request makes its own
connection, of a client that lives as long as the process. Requests before the first that is counted are not measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol


class Peer(Protocol):
    """
    What a library has to do.
    """

    async def get(self) -> tuple[str, int, bytes]:
        """
        One GET: the header ``X-Resumed``, the status and the body.
        """

    async def close(self) -> None:
        """
        Close the client.
        """


class Httpx:
    """
    httpx and what has its interface. Unpinned, or a pinned client of pinset; blocking or not.
    """

    def __init__(self, config: dict[str, Any], *, cold: bool) -> None:
        self._url = config["url"]
        name = config["peer"]
        library = __import__("httpx2" if name.startswith("httpx2") else "httpx")
        self._blocking = "blocking" in name
        keepalive = 0 if cold else 100
        arguments = {
            "verify": ssl.create_default_context(cafile=config["roots"]),
            "trust_env": False,
            "timeout": 60,
            "limits": library.Limits(max_connections=100, max_keepalive_connections=keepalive),
        }
        kind = "Client" if self._blocking else "AsyncClient"
        if not config["pinned"]:
            self._client = getattr(library, kind)(**arguments)
            return
        import importlib

        pinned = importlib.import_module("pinset.httpx2" if name.startswith("httpx2") else "pinset")
        host = library.URL(self._url).host
        resume = "no resumption" not in name
        self._client = getattr(pinned, f"Pinned{kind}")({host: config["pins"]}, session_resumption=resume, **arguments)

    async def get(self) -> tuple[str, int, bytes]:
        answer = self._client.get(self._url)
        response = answer if self._blocking else await answer
        return response.headers["x-resumed"], response.status_code, response.content

    async def close(self) -> None:
        if self._blocking:
            self._client.close()
        else:
            await self._client.aclose()


class Aiohttp:
    """
    aiohttp with ``ssl=Fingerprint(...)``, which takes the place of verification.
    """

    def __init__(self, config: dict[str, Any], *, cold: bool) -> None:
        import aiohttp

        self._url = config["url"]
        trust: Any = ssl.create_default_context(cafile=config["roots"])
        if config["pinned"]:
            trust = aiohttp.Fingerprint(bytes.fromhex(config["fingerprint"]))
        connector = aiohttp.TCPConnector(ssl=trust, force_close=cold, limit=100)
        self._client = aiohttp.ClientSession(connector=connector, trust_env=False)

    async def get(self) -> tuple[str, int, bytes]:
        async with self._client.get(self._url) as response:
            return response.headers["x-resumed"], response.status, await response.read()

    async def close(self) -> None:
        await self._client.close()


class Urllib3:
    """
    urllib3 with ``assert_fingerprint``. A context is given, or each connection would load the roots anew.
    """

    def __init__(self, config: dict[str, Any], *, cold: bool) -> None:
        import urllib3

        self._url = config["url"]
        pinned = {"assert_fingerprint": config["fingerprint"]} if config["pinned"] else {}
        self._pool = urllib3.PoolManager(
            ssl_context=ssl.create_default_context(cafile=config["roots"]), maxsize=100, retries=False, **pinned
        )
        self._headers = {"connection": "close"} if cold else {}

    async def get(self) -> tuple[str, int, bytes]:
        response = self._pool.request("GET", self._url, headers=self._headers)
        return response.headers["x-resumed"], response.status, response.data

    async def close(self) -> None:
        self._pool.clear()


class Requests:
    """
    requests with an adapter that passes ``assert_fingerprint`` on to urllib3.
    """

    def __init__(self, config: dict[str, Any], *, cold: bool) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        pinned = {"assert_fingerprint": config["fingerprint"]} if config["pinned"] else {}

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
                super().init_poolmanager(*args, **kwargs, **pinned)

        self._url = config["url"]
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = config["roots"]
        self._session.mount("https://", Adapter())
        self._headers = {"connection": "close"} if cold else {}

    async def get(self) -> tuple[str, int, bytes]:
        response = self._session.get(self._url, headers=self._headers)
        return response.headers["x-resumed"], response.status_code, response.content

    async def close(self) -> None:
        self._session.close()


class Niquests:
    """
    niquests with ``verify="sha256_..."``, which takes the place of verification. HTTP/2 and 3 are off: nginx offers none.
    """

    def __init__(self, config: dict[str, Any], *, cold: bool) -> None:
        import niquests

        self._url = config["url"]
        self._session = niquests.Session(disable_http2=True, disable_http3=True)
        self._session.trust_env = False
        self._session.verify = f"sha256_{config['fingerprint']}" if config["pinned"] else config["roots"]
        self._headers = {"connection": "close"} if cold else {}

    async def get(self) -> tuple[str, int, bytes]:
        response = self._session.get(self._url, headers=self._headers)
        return response.headers["x-resumed"], response.status_code, response.content

    async def close(self) -> None:
        self._session.close()


class Pycurl:
    """
    pycurl with ``PINNEDPUBLICKEY``; its session cache on, as it is by default, or off.
    """

    def __init__(self, config: dict[str, Any], *, cold: bool) -> None:
        import pycurl

        self._resumed, self._body = "", b""
        self._status = pycurl.RESPONSE_CODE
        curl = self._curl = pycurl.Curl()
        curl.setopt(pycurl.URL, config["url"])
        curl.setopt(pycurl.CAINFO, config["roots"])
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.FORBID_REUSE, int(cold))
        curl.setopt(pycurl.SSL_SESSIONID_CACHE, int("no session cache" not in config["peer"]))
        if config["pinned"]:
            pins = ";".join(pin.replace("sha256/", "sha256//") for pin in config["pins"])
            curl.setopt(pycurl.PINNEDPUBLICKEY, pins)

    def _header(self, line: bytes) -> None:
        if line.lower().startswith(b"x-resumed:"):
            self._resumed = line.partition(b":")[2].strip().decode()

    def _write(self, data: bytes) -> None:
        self._body += data

    async def get(self) -> tuple[str, int, bytes]:
        self._body = b""
        self._curl.perform()
        return self._resumed, self._curl.getinfo(self._status), self._body

    async def close(self) -> None:
        self._curl.close()


PEERS: dict[str, Callable[..., Peer]] = {
    "httpx": Httpx,
    "httpx2": Httpx,
    "aiohttp": Aiohttp,
    "urllib3": Urllib3,
    "requests": Requests,
    "niquests": Niquests,
    "pycurl": Pycurl,
}


def make(config: dict[str, Any], *, cold: bool) -> Peer:
    """
    The client for a configuration; the first word of its ``peer`` names the library.
    """
    return PEERS[config["peer"].split(",")[0]](config, cold=cold)


async def probe(config: dict[str, Any]) -> dict[str, Any]:
    """
    Whether one request goes through.
    """
    try:
        peer = make(config, cold=True)
        try:
            _, status, _ = await peer.get()
        finally:
            await peer.close()
    except Exception as error:  # noqa: BLE001 - every library has its own
        return {"accepted": False, "error": f"{type(error).__name__}: {error}"[:200]}
    return {"accepted": status == 200, "error": ""}


async def sample(peer: Peer, order: dict[str, Any]) -> dict[str, Any]:
    """
    Requests, so many at a time; microseconds per request, how many were resumed, and each one's own time.
    """
    requests, concurrency = order["requests"], order.get("concurrency", 1)
    first = order.get("first", 2 * concurrency)
    started = done = resumed = 0
    own: list[float] = []
    begin = end = (0.0, 0.0)
    gc.collect()

    async def work() -> None:
        nonlocal started, done, resumed, begin, end
        while started < first + requests:
            started += 1
            sent = time.perf_counter()
            how, status, body = await peer.get()
            if status != 200 or len(body) != 100:
                raise RuntimeError(f"status {status} and {len(body)} bytes, not 200 and 100")
            done += 1
            if done == first:
                begin = _now()
            elif done > first:
                own.append(round((time.perf_counter() - sent) * 1e6, 1))
                resumed += how == "r"
            if done == first + requests:
                end = _now()

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return {
        "cpu": round((end[0] - begin[0]) / requests * 1e6, 2),
        "wall": round((end[1] - begin[1]) / requests * 1e6, 2),
        "resumed": round(resumed / requests, 4),
        "own": own,
    }


def _now() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()


def main() -> None:
    """
    Serve orders until standard input ends.
    """
    config = json.loads(sys.stdin.readline())
    peers: dict[str, Peer] = {}
    with asyncio.Runner() as runner:

        async def answer(order: dict[str, Any]) -> dict[str, Any]:
            if order["kind"] == "probe":
                return await probe({**config, **order})
            if order["kind"] not in peers:
                peers[order["kind"]] = make(config, cold=order["kind"] == "cold")
            return await sample(peers[order["kind"]], order)

        print(json.dumps({"python": sys.version.split()[0]}), flush=True)
        for line in sys.stdin:
            print(json.dumps(runner.run(answer(json.loads(line)))), flush=True)
        for peer in peers.values():
            runner.run(peer.close())


if __name__ == "__main__":
    main()
