"""
What SDKs expect of a client that they are given: their timeouts, its limits, redirects; and what they do on other roads.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from conftest import BACKUP
from recipes import need, recipe, refusal

import pinset.httpx
import pinset.httpx2
from pinset import Decision, PinMismatchError, UnlistedHostError
from pinset.testing import TLSServer

need("openai", "anthropic", "supabase", "postgrest", "qdrant_client", "mcp", "httpx2", "websockets", "uvicorn")

import anthropic
import httpx
import httpx2
import openai
from postgrest import AsyncPostgrestClient
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException

pytestmark = pytest.mark.integration

KEY = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
MESSAGES = [{"role": "user", "content": "hello"}]


async def _completion(client):
    return (await client.chat.completions.create(model="m", messages=MESSAGES)).choices[0].message.content


async def _message(client):
    return (await client.messages.create(model="m", max_tokens=9, messages=MESSAGES)).content[0].text


SDKS = {
    "openai": (openai.AsyncOpenAI, _completion, openai, "/v1"),
    "anthropic": (anthropic.AsyncAnthropic, _message, anthropic, ""),
}
both = pytest.mark.parametrize(("make", "ask", "sdk", "path"), SDKS.values(), ids=SDKS)


@both
def test_timeouts_of_the_sdk_hold(make, ask, sdk, path, pins):
    """Without a timeout of the client's the SDK's own is in force, and with one the client's."""

    async def timeouts():
        made = [
            make(api_key=KEY, http_client=pinset.httpx2.PinnedAsyncClient(pins, **options))
            for options in ({}, {"timeout": 30})
        ]
        found = [client.timeout for client in made]
        for client in made:
            await client.close()
        return found

    own, ours = asyncio.run(timeouts())
    assert own.read == 600
    assert ours == httpx2.Timeout(30)


@both
def test_timeout_of_a_request(make, ask, sdk, path, web, pins):
    """The timeout that the SDK puts on a request is kept."""

    async def wait():
        http_client = pinset.httpx2.PinnedAsyncClient(pins)
        options = {"base_url": f"{web.url('/silent')}{path}", "http_client": http_client, "timeout": 0.2}
        async with make(api_key=KEY, max_retries=0, **options) as client:
            await ask(client)

    with pytest.raises(sdk.APITimeoutError):
        asyncio.run(wait())


@both
def test_limits_of_the_client(make, ask, sdk, path, web, pins, relay):
    """Under a limit of one connection, five requests at a time share one connection."""

    async def five(port):
        limits = httpx2.Limits(max_connections=1)
        http_client = pinset.httpx2.PinnedAsyncClient(pins, limits=limits)
        base = f"https://localhost:{port}{path}"
        async with make(api_key=KEY, max_retries=0, base_url=base, http_client=http_client) as client:
            return await asyncio.gather(*(ask(client) for _ in range(5)))

    with relay(web.ports[0]) as wire:
        assert asyncio.run(five(wire.port)) == ["hello"] * 5
        assert len(wire.captured()) == 1


@both
def test_redirects(make, ask, sdk, path, web, pins):
    """``follow_redirects=True`` is followed with the body, under the same pins; a host that is not listed is refused."""

    async def follow(prefix):
        http_client = pinset.httpx2.PinnedAsyncClient(pins, follow_redirects=True)
        base = f"{web.url(prefix)}{path}"
        async with make(api_key=KEY, max_retries=0, base_url=base, http_client=http_client) as client:
            return await ask(client)

    assert asyncio.run(follow("/moved")) == "hello"
    before = web.log.size()
    with pytest.raises(sdk.APIConnectionError) as caught:
        asyncio.run(follow("/away"))
    assert isinstance(refusal(caught.value), UnlistedHostError)
    assert web.log.text(before).count("\n") == 1


@both
def test_the_sdk_tries_again(make, ask, sdk, path, web, wrong, relay):
    """What the page says of the SDK's default: three attempts, each of one handshake."""

    async def insist(port):
        http_client = pinset.httpx2.PinnedAsyncClient(wrong)
        base = f"https://localhost:{port}{path}"
        async with make(api_key=KEY, base_url=base, http_client=http_client) as client:
            await ask(client)

    with relay(web.ports[0]) as wire:
        with pytest.raises(sdk.APIConnectionError) as caught:
            asyncio.run(insist(wire.port))
        assert len(wire.captured()) == 3
    assert isinstance(refusal(caught.value), PinMismatchError)


@both
def test_environment_proxy(make, ask, sdk, path, web, pins, interceptor, monkeypatch):
    """The road that HTTPS_PROXY names is pinned: the interceptor on it gets nothing to read."""

    async def through(http_client):
        async with make(api_key=KEY, max_retries=0, base_url=web.url(path), http_client=http_client) as client:
            return await ask(client)

    monkeypatch.setenv("HTTPS_PROXY", interceptor.url)
    assert asyncio.run(through(httpx2.AsyncClient())) == "hello"
    assert KEY.encode() in interceptor.intercepted.pop("localhost")
    with pytest.raises(sdk.APIConnectionError) as caught:
        asyncio.run(through(pinset.httpx2.PinnedAsyncClient(pins)))
    assert isinstance(refusal(caught.value), PinMismatchError)
    assert interceptor.intercepted == {}


def test_verdict_of_a_raw_response(web, pins):
    """The SDK hands out the response, and that carries the verdict."""

    async def ask():
        http_client = pinset.httpx2.PinnedAsyncClient(pins)
        async with openai.AsyncOpenAI(api_key=KEY, base_url=web.url("/v1"), http_client=http_client) as client:
            raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
            return raw.http_response.extensions["pinset"]

    assert asyncio.run(ask()).decision is Decision.ALLOW


@pytest.mark.parametrize("client", [pinset.httpx.PinnedAsyncClient, pinset.httpx2.PinnedClient])
def test_anthropic_takes_one_kind(client, pins):
    """The kind of client that is not asked for is a TypeError of the SDK."""
    with pytest.raises(TypeError, match="http_client"):
        anthropic.AsyncAnthropic(api_key=KEY, http_client=client(pins))


def test_redirects_of_postgrest(web, pins):
    """postgrest on a client that follows redirects, with HTTP/2, as its own does."""

    async def ask():
        base = web.url("/moved/rest/v1")
        async with pinset.httpx.PinnedAsyncClient(pins, http2=True, follow_redirects=True) as http_client:
            return (await AsyncPostgrestClient(base, http_client=http_client).from_("items").select("*").execute()).data

    since = web.log.size()
    assert asyncio.run(ask()) == [{"id": 1}]
    web.log.wait_for(r"(?m)^/rest/v1/items\?select=[^|]+\|HTTP/2\.0\|", since)


def test_timeout_of_postgrest(web, pins):
    """The client's timeout is the one that holds."""

    async def ask():
        async with pinset.httpx.PinnedAsyncClient(pins, timeout=httpx.Timeout(20, read=0.2)) as http_client:
            client = AsyncPostgrestClient(web.url("/silent"), http_client=http_client)
            await client.from_("items").select("*").execute()

    with pytest.raises(httpx.ReadTimeout):
        asyncio.run(ask())


@pytest.mark.parametrize("part", ["auth", "storage", "functions", "table"])
def test_every_part_of_supabase(part, web, wrong, relay):
    """Each part of supabase that speaks HTTP goes through the client."""

    async def ask(port):
        replace = {"https://api.example.com": f"https://localhost:{port}"}
        client = await recipe("supabase and postgrest", replace, pins=wrong)["open_supabase"](KEY)
        uses = {
            "auth": lambda: client.auth.sign_in_with_password({"email": "a@example.com", "password": "secret"}),
            "storage": client.storage.list_buckets,
            "functions": lambda: client.functions.invoke("function"),
            "table": lambda: client.table("items").select("*").execute(),
        }
        try:
            await uses[part]()
        finally:
            await client.options.httpx_client.aclose()

    with relay(web.ports[0]) as wire:
        with pytest.raises(Exception) as caught:
            asyncio.run(ask(wire.port))
        assert len(wire.captured()) == 1
    assert isinstance(refusal(caught.value), PinMismatchError)


def test_timeout_of_qdrant(web, pins):
    """qdrant-client hands its timeout to the client it makes."""

    async def ask():
        options = {"port": None, "timeout": 1, "check_compatibility": False}
        transport = pinset.httpx.PinnedAsyncTransport(pins)
        client = AsyncQdrantClient(web.url("/silent"), transport=transport, **options)
        try:
            await client.get_collections()
        finally:
            await client.close()

    with pytest.raises(ResponseHandlingException) as caught:
        asyncio.run(ask())
    assert isinstance(caught.value.source, httpx.TimeoutException)


def test_qdrant_with_a_context(web, pins, wrong, relay):
    """``verify=context`` in the place of the transport."""

    async def ask(policy, port):
        context = pinset.pinned_ssl_context(policy)
        options = {"port": None, "verify": context, "check_compatibility": False}
        client = AsyncQdrantClient(f"https://localhost:{port}", **options)
        try:
            return len((await client.get_collections()).collections)
        finally:
            await client.close()

    assert asyncio.run(ask(pins, web.ports[0])) == 1
    with relay(web.ports[0]) as wire:
        with pytest.raises(ResponseHandlingException) as caught:
            asyncio.run(ask(wrong, wire.port))
        assert len(wire.captured()) == 1
    assert isinstance(refusal(caught.value), PinMismatchError)


@pytest.mark.filterwarnings("ignore::UserWarning")  # qdrant-client warns from its thread that it is not its server
def test_what_the_page_says_of_qdrants_check(impostor, pins):
    """With its check of versions on, qdrant-client shows its API key to an impostor before any request of ours."""
    with TLSServer(impostor.server_context()) as server:
        transport = pinset.httpx.PinnedAsyncTransport(pins)
        client = AsyncQdrantClient(server.url(path=""), port=None, api_key=KEY, transport=transport)

        async def until_asked():
            for _ in range(1000):
                if server.seen.requests:
                    break
                await asyncio.sleep(0.01)
            await client.close()

        asyncio.run(until_asked())
        assert KEY.encode() in server.seen.requests[0]


def test_mcp_follows_redirects_of_its_origin(web, pins):
    """mcp follows a redirect within the endpoint's origin itself, and the pinned client goes along."""
    replace = {"https://api.example.com/mcp": web.url("/moved/mcp")}
    answer = asyncio.run(recipe("mcp", replace, pins=pins)["add"](2, 3))
    assert answer.content[0].text == "5"


_ALIASED = """
import httpx2
httpx2.alias_httpx()
import sys, pinset.httpx, pinset.httpx2
url, right, wrong = sys.argv[1:]
for module in (pinset.httpx, pinset.httpx2):
    assert issubclass(module.PinnedClient, httpx2.Client)
    for pins in ((right, wrong), (wrong, wrong[:-2] + "I=")):
        with module.PinnedClient({"localhost": pins}) as client:
            try:
                print(client.get(url).text)
            except httpx2.TransportError as error:
                print(isinstance(error, pinset.PinMismatchError))
"""


def test_httpx_that_is_httpx2(web, leaf):
    """Where a program has made httpx2 stand in for httpx, both modules go on, and pin."""
    command = [sys.executable, "-c", _ALIASED, web.url("/"), leaf.pin, BACKUP]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["hello", "True"] * 2, done.stderr
