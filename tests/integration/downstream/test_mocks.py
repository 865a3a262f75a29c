"""
respx and pytest-httpx with pinned clients: the lines of the documentation.
"""

from __future__ import annotations

import asyncio

import pytest
from recipes import need, recipe

import pinset.httpx
from pinset import UnlistedHostError

need("respx", "pytest_httpx", "websockets", "mcp", "uvicorn")

import respx

pytestmark = pytest.mark.integration
URL = "https://localhost/user"


def test_respx(pins):
    """The lines answer without a connection."""
    scope = recipe("respx", {"https://api.example.com/user": URL}, pins=pins)
    assert asyncio.run(scope["mocked"]()) == {"name": "Ada"}


@pytest.mark.respx(using="httpx")
def test_respx_fixture(respx_mock, pins):
    """The fixture with its marker, and a blocking client."""
    respx_mock.get(URL).respond(json={"name": "Ada"})
    with pinset.httpx.PinnedClient(pins) as client:
        assert client.get(URL).json() == {"name": "Ada"}
        with pytest.raises(respx.models.AllMockedAssertionError):
            client.get("https://localhost/other")


def test_what_the_page_says_of_respx_by_default(web, pins):
    """Without ``using`` respx stands where pinned clients do not pass, and the request reaches the server."""

    async def get():
        with respx.mock(assert_all_called=False) as mock:
            mock.get(web.url("/")).respond(text="mocked")
            async with pinset.httpx.PinnedAsyncClient(pins) as client:
                return (await client.get(web.url("/"))).text

    assert asyncio.run(get()) == "hello"


def test_pytest_httpx(httpx_mock, pins):
    """The lines answer without a connection."""
    scope = recipe("pytest-httpx", {"https://api.example.com/user": URL}, pins=pins)
    asyncio.run(scope["test_user"](httpx_mock))


def test_pytest_httpx_blocking(httpx_mock, pins):
    """A blocking client as well."""
    httpx_mock.add_response(url=URL, text="mocked")
    with pinset.httpx.PinnedClient(pins) as client:
        assert client.get(URL).text == "mocked"


@pytest.mark.httpx_mock(assert_all_responses_were_requested=False)
def test_rules_without_a_connection_hold(httpx_mock, pins):
    """A host that is not in the policy is refused, mocked or not."""
    httpx_mock.add_response(url="https://other.test/", text="mocked")
    with pinset.httpx.PinnedClient(pins) as client, pytest.raises(UnlistedHostError):
        client.get("https://other.test/")


def test_transport_of_a_test(pins):
    """A pinned client refuses ``httpx.MockTransport``: that belongs into a client without pins."""
    import httpx

    with pytest.raises(pinset.ContextError, match="transport="):
        pinset.httpx.PinnedClient(pins, transport=httpx.MockTransport(lambda _: httpx.Response(200)))
