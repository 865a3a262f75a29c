"""
An ASGI application that tells what it was asked, and streams: what a client can be compared with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from urllib.parse import parse_qs

PART = b"x" * 65_536


async def app(scope, receive, send):  # noqa: PLR0912 - one branch a path
    """Routes by path."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    path, query = scope["path"], parse_qs(scope["query_string"].decode())
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]

    body = b"".join([part async for part in _body(receive)])  # all of it, or hypercorn would close the connection

    async def answer(status, content=b"", *extra):
        await send({"type": "http.response.start", "status": status, "headers": [*extra]})
        await send({"type": "http.response.body", "body": content})

    match path:
        case "/echo":
            told = {
                "method": scope["method"],
                "version": scope["http_version"],
                "query": query,
                "headers": headers,
                "size": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            }
            await answer(200, json.dumps(told).encode(), (b"content-type", b"application/json"))
        case "/redirect":
            await answer(int(query["status"][0]), b"", (b"location", query["to"][0].encode()))
        case "/cookie":
            await answer(200, b"", (b"set-cookie", b"session=secret; Path=/"))
        case "/basic" if ("authorization", "Basic dXNlcjpwYXNz") in headers:
            await answer(200)
        case "/basic":
            await answer(401, b"", (b"www-authenticate", b'Basic realm="test"'))
        case "/digest" if any(name == "authorization" and value.startswith("Digest ") for name, value in headers):
            await answer(200)
        case "/digest":
            challenge = b'Digest realm="test", nonce="abc", qop="auth", algorithm=SHA-256'
            await answer(401, b"", (b"www-authenticate", challenge))
        case "/slow":
            await asyncio.sleep(float(query["seconds"][0]))
            await answer(200)
        case "/latin":
            await answer(200, "é".encode("latin-1"), (b"content-type", b"text/plain"))
        case "/download":
            count = int(query["parts"][0])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(count):
                await send({"type": "http.response.body", "body": PART, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case _:
            await answer(404)


async def _body(receive):
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if message.get("body"):
            yield message["body"]
        more = message.get("more_body")
