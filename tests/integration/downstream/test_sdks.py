"""
SDKs that take a client, a transport or a context, against an nginx that plays their APIs: the lines of the documentation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from recipes import need, recipe, refusal

import pinset
from pinset import Outcome, PinMismatchError

need(
    *("supabase", "postgrest", "qdrant_client", "httpx_sse", "httpx_ws", "hishel", "httpx_retries"),
    *("httpx2", "openai", "anthropic", "mcp", "gql", "authlib", "websockets", "uvicorn"),
)

import anthropic
import gql.transport.httpx
import hishel.httpx
import hishel.httpx2
import httpx
import httpx2
import httpx_retries
import httpx_sse
import httpx_ws
import openai
from authlib.integrations.httpx_client import OAuth2Client
from gql.transport.exceptions import TransportConnectionFailed
from postgrest import AsyncPostgrestClient, SyncPostgrestClient
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException
from supabase import ClientOptions, create_client

import pinset.httpx
import pinset.httpx2

pytestmark = pytest.mark.integration

KEY = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"  # supabase looks at its shape


async def _supabase(scope):
    client = await scope["open_supabase"](KEY)
    try:
        return (await client.table("items").select("*").execute()).data
    finally:
        await client.options.httpx_client.aclose()


async def _supabase_blocking(scope):
    def ask():
        with pinset.httpx.PinnedClient(scope["pins"], http2=True, follow_redirects=True) as http_client:
            client = create_client(scope["base"], KEY, ClientOptions(httpx_client=http_client))
            return client.table("items").select("*").execute().data

    return await asyncio.to_thread(ask)


async def _postgrest(scope):
    base = f"{scope['base']}/rest/v1"
    async with pinset.httpx.PinnedAsyncClient(scope["pins"]) as http_client:
        client = AsyncPostgrestClient(base, http_client=http_client)
        return (await client.from_("items").select("*").execute()).data


async def _postgrest_blocking(scope):
    def ask():
        base = f"{scope['base']}/rest/v1"
        with pinset.httpx.PinnedClient(scope["pins"]) as http_client:
            return SyncPostgrestClient(base, http_client=http_client).from_("items").select("*").execute().data

    return await asyncio.to_thread(ask)


async def _qdrant(scope):
    client = scope["open_qdrant"](KEY)
    try:
        return [each.name for each in (await client.get_collections()).collections]
    finally:
        await client.close()


async def _qdrant_blocking(scope):
    def ask():
        transport = pinset.httpx.PinnedTransport(scope["pins"])
        options = {"port": None, "transport": transport, "check_compatibility": False}
        client = QdrantClient(scope["base"], **options)
        try:
            return [each.name for each in client.get_collections().collections]
        finally:
            client.close()

    return await asyncio.to_thread(ask)


async def _sse_blocking(scope):
    def ask():
        with (
            pinset.httpx.PinnedClient(scope["pins"]) as client,
            httpx_sse.connect_sse(client, "GET", f"{scope['base']}/events") as source,
        ):
            return next(source.iter_sse()).data

    return await asyncio.to_thread(ask)


async def _ws_blocking(scope):
    def ask():
        with (
            pinset.httpx.PinnedClient(scope["pins"]) as client,
            httpx_ws.connect_ws(f"{scope['base']}/feed", client) as connection,
        ):
            for number in range(100):  # it reads in a thread of its own meanwhile
                connection.send_text(f"{number} " * 1000)
            return [connection.receive_text(timeout=20) for _ in range(100)]

    return await asyncio.to_thread(ask)


async def _hishel(scope):
    async with scope["open_cached"]() as client:
        answers = [await client.get(f"{scope['base']}/cached") for _ in range(2)]
        return [(answer.text, answer.extensions["caching"]["from_cache"]) for answer in answers]


async def _hishel_on_httpx2(scope):
    transport = hishel.httpx2.AsyncCacheTransport(pinset.httpx2.PinnedAsyncTransport(scope["pins"]), rfc=True)
    async with httpx2.AsyncClient(transport=transport) as client:
        answers = [await client.get(f"{scope['base']}/cached") for _ in range(2)]
        return [(answer.text, answer.extensions["caching"]["from_cache"]) for answer in answers]


async def _hishel_blocking(scope):
    def ask():
        transport = hishel.httpx.CacheTransport(pinset.httpx.PinnedTransport(scope["pins"]), rfc=True)
        with httpx.Client(transport=transport) as client:
            answers = [client.get(f"{scope['base']}/cached") for _ in range(2)]
            return [(answer.text, answer.extensions["caching"]["from_cache"]) for answer in answers]

    return await asyncio.to_thread(ask)


async def _retries_blocking(scope):
    def ask():
        transport = httpx_retries.RetryTransport(transport=pinset.httpx.PinnedTransport(scope["pins"]))
        with httpx.Client(transport=transport) as client:
            return client.get(f"{scope['base']}/").text

    return await asyncio.to_thread(ask)


async def _retries(scope):
    async with scope["open_retrying"]() as client:
        return (await client.get(f"{scope['base']}/")).text


async def _openai(scope):
    async with scope["open_openai"](KEY) as client:
        answer = await client.with_options(max_retries=0).chat.completions.create(model="m", messages=_MESSAGES)
        return answer.choices[0].message.content


async def _openai_stream(scope):
    async with scope["open_openai"](KEY) as client:
        patient = client.with_options(max_retries=0, base_url=f"{scope['base']}/stream/v1")
        chunks = await patient.chat.completions.create(model="m", messages=_MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content async for chunk in chunks])


async def _openai_blocking(scope):
    def ask():
        with scope["open_openai_blocking"](KEY) as client:
            answer = client.with_options(max_retries=0).chat.completions.create(model="m", messages=_MESSAGES)
            return answer.choices[0].message.content

    return await asyncio.to_thread(ask)


async def _openai_on_httpx(scope):
    http_client = pinset.httpx.PinnedAsyncClient(scope["pins"])
    options = {"api_key": KEY, "base_url": f"{scope['base']}/v1", "max_retries": 0, "http_client": http_client}
    async with openai.AsyncOpenAI(**options) as client:
        answer = await client.chat.completions.create(model="m", messages=_MESSAGES)
        return answer.choices[0].message.content


async def _anthropic(scope):
    async with scope["open_anthropic"](KEY) as client:
        answer = await client.with_options(max_retries=0).messages.create(model="m", max_tokens=9, messages=_MESSAGES)
        return answer.content[0].text


async def _anthropic_blocking(scope):
    def ask():
        with scope["open_anthropic_blocking"](KEY) as client:
            answer = client.with_options(max_retries=0).messages.create(model="m", max_tokens=9, messages=_MESSAGES)
            return answer.content[0].text

    return await asyncio.to_thread(ask)


async def _gql_blocking(scope):
    def ask():
        transport = gql.transport.httpx.HTTPXTransport(
            f"{scope['base']}/graphql", transport=pinset.httpx2.PinnedTransport(scope["pins"])
        )
        with gql.Client(transport=transport) as session:
            return session.execute(gql.gql("{ hello }"))

    return await asyncio.to_thread(ask)


async def _authlib_blocking(scope):
    def ask():
        with OAuth2Client("id", "secret", transport=pinset.httpx2.PinnedTransport(scope["pins"])) as client:
            client.fetch_token(f"{scope['base']}/oauth/token", grant_type="client_credentials")
            return client.get(f"{scope['base']}/bearer").text

    return await asyncio.to_thread(ask)


async def _authlib(scope):
    async with scope["open_oauth"]("id", "secret") as client:
        await client.fetch_token(f"{scope['base']}/oauth/token", grant_type="client_credentials")
        return (await client.get(f"{scope['base']}/bearer")).text


async def _mcp(scope):
    return (await scope["add"](2, 3)).content[0].text


_MESSAGES = [{"role": "user", "content": "hello"}]


@dataclass(frozen=True)
class SDK:
    """
    One SDK.

    Attributes:
        section: Of the page.
        use: Makes a request or two with what the lines define; what came of it.
        answer: What has to come of it.
        error: What a wrong pin is to the SDK's users.
        path: Of the URL in the lines, if they hold one.
    """

    section: str
    use: Callable[[dict[str, Any]], Awaitable[Any]]
    answer: Any
    error: type[Exception]
    path: str | None = None


ITEMS = [{"id": 1}]
KEPT = [("kept", False), ("kept", True)]
MISMATCH, MISMATCH2 = pinset.httpx.PinMismatchError, pinset.httpx2.PinMismatchError
SDKS = {
    "supabase": SDK("supabase and postgrest", _supabase, ITEMS, MISMATCH, ""),
    "supabase-blocking": SDK("supabase and postgrest", _supabase_blocking, ITEMS, MISMATCH),
    "postgrest": SDK("supabase and postgrest", _postgrest, ITEMS, MISMATCH),
    "postgrest-blocking": SDK("supabase and postgrest", _postgrest_blocking, ITEMS, MISMATCH),
    "qdrant": SDK("qdrant-client", _qdrant, ["books"], ResponseHandlingException, ""),
    "qdrant-blocking": SDK("qdrant-client", _qdrant_blocking, ["books"], ResponseHandlingException),
    "httpx-sse": SDK("httpx-sse", lambda scope: scope["first_event"](), "hello", MISMATCH, "/events"),
    "httpx-sse-blocking": SDK("httpx-sse", _sse_blocking, "hello", MISMATCH),
    "httpx-ws": SDK("httpx-ws", lambda scope: scope["echo"](), "hello", MISMATCH, "/feed"),
    "httpx-ws-blocking": SDK("httpx-ws", _ws_blocking, [f"{number} " * 1000 for number in range(100)], MISMATCH),
    "hishel": SDK("hishel", _hishel, KEPT, MISMATCH),
    "hishel-httpx2": SDK("hishel", _hishel_on_httpx2, KEPT, MISMATCH2),
    "hishel-blocking": SDK("hishel", _hishel_blocking, KEPT, MISMATCH),
    "httpx-retries": SDK("httpx-retries", _retries, "hello", MISMATCH),
    "httpx-retries-blocking": SDK("httpx-retries", _retries_blocking, "hello", MISMATCH),
    "openai": SDK("openai", _openai, "hello", openai.APIConnectionError, "/v1"),
    "openai-stream": SDK("openai", _openai_stream, "hello", openai.APIConnectionError, "/v1"),
    "openai-blocking": SDK("openai", _openai_blocking, "hello", openai.APIConnectionError, "/v1"),
    "openai-on-httpx": SDK("openai", _openai_on_httpx, "hello", openai.APIConnectionError),
    "anthropic": SDK("anthropic", _anthropic, "hello", anthropic.APIConnectionError, ""),
    "anthropic-blocking": SDK("anthropic", _anthropic_blocking, "hello", anthropic.APIConnectionError, ""),
    "mcp": SDK("mcp", _mcp, "5", ExceptionGroup, "/mcp"),
    "gql": SDK("gql", lambda scope: scope["hello"](), {"hello": "world"}, TransportConnectionFailed, "/graphql"),
    "gql-blocking": SDK("gql", _gql_blocking, {"hello": "world"}, TransportConnectionFailed),
    "authlib": SDK("authlib", _authlib, "Bearer token", MISMATCH2),
    "authlib-blocking": SDK("authlib", _authlib_blocking, "Bearer token", MISMATCH2),
}
sdks = pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)


def _scope(sdk, pins, port):
    base = f"https://localhost:{port}"
    replace = {} if sdk.path is None else {f"https://api.example.com{sdk.path}": f"{base}{sdk.path}"}
    return {**recipe(sdk.section, replace, pins=pins), "pins": pins, "base": base}


@sdks
def test_right_pin(sdk, web, pins):
    """With a right pin the SDK gets what it asks for."""
    assert asyncio.run(sdk.use(_scope(sdk, pins, web.ports[0]))) == sdk.answer


@sdks
@pytest.mark.parametrize("server", ["genuine", "rogue"])
def test_wrong_pin(sdk, server, web, pins, wrong, relay, tls_records):
    """With a wrong one it gets an error of its own or of ours, after one handshake that said nothing."""
    before = web.log.size()
    port, policy = (web.ports[0], wrong) if server == "genuine" else (web.ports[1], pins)
    with relay(port) as wire:
        with pytest.raises(sdk.error) as caught:
            asyncio.run(sdk.use(_scope(sdk, policy, wire.port)))
        clients = [tls_records(sent) for sent in wire.captured()]
    found = refusal(caught.value)
    assert isinstance(found, PinMismatchError)
    assert found.verdict.outcome is Outcome.MISMATCHED
    assert len(clients) == 1
    assert [(kind, body[0]) for kind, body in clients[0]][:1] == [(22, 1)]
    assert sum((kind, body[0]) == (22, 1) for kind, body in clients[0]) == 1
    assert web.log.text(before) == ""
