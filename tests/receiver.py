"""
A receiver of reports: an ASGI application, and the process of hypercorn that serves it.

What it answers is in the path, and how often it was asked there: ``/503,503,200`` refuses twice and then accepts.
``/redirect`` leads to ``/200``, ``/hang`` never answers, ``/endless`` never stops answering. A status may carry a
``Retry-After``, as in ``/429;1,200``; what follows a second slash only tells paths apart. ``GET /seen`` tells what arrived.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import ssl
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asgi import serving

seen: list[dict] = []
asked: Counter[str] = Counter()


async def app(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    path = scope["path"]
    if path == "/seen":
        return await answer(send, 200, body=json.dumps(seen).encode())
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen.append(
        {
            "path": path,
            "method": scope["method"],
            "http": scope["http_version"],
            "headers": headers,
            "body": base64.b64encode(body).decode(),
            "at": time.time(),
        }
    )
    if path == "/hang":
        await asyncio.sleep(3600)
    if path == "/redirect":
        return await answer(send, 307, {"location": "/200"})
    if path == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())  # the disconnection
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0.001)
        return None
    if not path[1:4].isdigit():  # sentry's own paths
        return await answer(send, 200, body=b"{}")
    answers = path.split("/")[1].split(",")
    status, _, after = answers[min(asked[path], len(answers) - 1)].partition(";")
    asked[path] += 1
    return await answer(send, int(status), {"retry-after": after} if after else {})


async def answer(send, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
    lines = {"content-length": str(len(body)), "set-cookie": "pinset=1", **(headers or {})}
    pairs = [(name.encode(), value.encode()) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class Receiver:
    """
    A running receiver.

    Args:
        port: Of 127.0.0.1.
        cafile: The root that vouches for it, or None for one without TLS.
    """

    def __init__(self, port: int, cafile: Path | None) -> None:
        self.port, self.cafile = port, cafile
        self._context = ssl.create_default_context(cafile=str(cafile)) if cafile else None

    def url(self, path: str, host: str = "localhost") -> str:
        return f"http{'s' if self.cafile else ''}://{host}:{self.port}{path}"

    def seen(self, path: str) -> list[dict]:
        """What arrived at *path*, with the body as it was sent."""
        with urllib.request.urlopen(self.url("/seen"), timeout=10, context=self._context) as response:
            requests = [one for one in json.load(response) if one["path"] == path]
        for one in requests:
            body = base64.b64decode(one["body"])
            one["body"] = gzip.decompress(body) if one["headers"].get("content-encoding") == "gzip" else body
        return requests

    def reports(self, path: str) -> list[dict]:
        """The JSON documents that arrived at *path*."""
        return [json.loads(one["body"]) for one in self.seen(path)]


@contextmanager
def receiver(directory: Path, identity=None, root: str = "") -> Iterator[Receiver]:
    """A `Receiver` in a process of its own, with the certificate of *identity* or without TLS."""
    cafile = None
    if identity is not None:
        cafile = directory / "root.pem"
        cafile.write_text(root)
    with serving("receiver:app", directory, identity) as port:
        yield Receiver(port, cafile)
