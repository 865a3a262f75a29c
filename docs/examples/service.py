"""
A service that asks a pinned upstream: one client for its whole life, and 502 when the upstream is not the one we know.

    UPSTREAM=https://api.example.com PINS=pins.toml uvicorn --app-dir docs/examples service:app
"""

import contextlib
import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pinset import PinnedAsyncClient, RefusedError, load_policy


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
    """A policy that cannot be used stops the service here, before it has taken a request."""
    policy = load_policy(os.environ["PINS"])
    async with PinnedAsyncClient(policy, base_url=os.environ["UPSTREAM"], timeout=10) as client:
        yield {"client": client}


async def user(request: Request) -> Response:
    """A user, as the upstream knows it."""
    client: PinnedAsyncClient = request.state.client
    response = await client.get(f"/users/{request.path_params['name']}")
    return Response(response.content, response.status_code, media_type=response.headers.get("Content-Type"))


async def checks(request: Request) -> Response:
    """What the pins have found since the start, for a dashboard: rule, outcome, decision, how often."""
    client: PinnedAsyncClient = request.state.client
    found = client.pinner.reporter.checks
    return JSONResponse([[*map(str, key), number] for key, number in found.items()])


async def untrusted(_: Request, __: Exception) -> Response:
    """The caller learns no more than this; the rest is in the log of pinset, as an error."""
    return JSONResponse({"error": "the upstream is not the one we know"}, 502)


async def unreachable(_: Request, __: Exception) -> Response:
    """Nobody there, too slow, or a certificate that does not verify."""
    return JSONResponse({"error": "the upstream does not answer"}, 504)


app = Starlette(
    routes=[Route("/users/{name}", user), Route("/checks", checks)],
    lifespan=lifespan,
    # A RefusedError from a pinned client is also an httpx.TransportError; the nearer class is found first.
    exception_handlers={RefusedError: untrusted, httpx.TransportError: unreachable},
)
