"""
The bare context in asyncio, aiohttp, urllib3, requests and websockets, against nginx: the lines of the documentation.
"""

from __future__ import annotations

import asyncio
import ssl
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from recipes import need, recipe, refusal

from pinset import (
    Outcome,
    PinMismatchError,
    UnverifiedChainError,
    pinned_ssl_context,
)

need("aiohttp", "urllib3", "requests", "websockets", "uvloop", "mcp", "uvicorn")

import aiohttp
import requests
import urllib3

pytestmark = pytest.mark.integration
_LOOPS = ("asyncio", "uvloop")


def _on(loop, coroutine):
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(coroutine)


@dataclass(frozen=True)
class Library:
    """
    One row of the page.

    Attributes:
        section: Its heading.
        replace: What the lines say in the place of host and port.
        use: Run what the lines define; the answer as text.
        answer: What nginx has to say.
        error: What a wrong pin is to the library's users.
        attempts: Handshakes for one request with a wrong pin.
        proxied: Whether the lines heed HTTPS_PROXY.
    """

    section: str
    replace: tuple[str, str]
    use: Any
    answer: str
    error: type[Exception]
    attempts: int = 1
    proxied: bool = True


_HELLO = "hello"
_URL = ("https://api.example.com/", "https://localhost:{}/")
LIBRARIES = [
    *(
        pytest.param(
            Library(
                "asyncio",
                ('"api.example.com", 443', '"localhost", {}'),
                lambda scope, _, loop=loop: _on(loop, scope["ask"]()).decode(),
                _HELLO,
                ssl.SSLCertVerificationError,
                proxied=False,
            ),
            id=f"streams-{loop}",
        )
        for loop in _LOOPS
    ),
    *(
        pytest.param(
            Library(
                "aiohttp",
                _URL,
                lambda scope, _, loop=loop: _on(loop, scope["fetch"]()),
                _HELLO,
                aiohttp.ClientConnectorCertificateError,
            ),
            id=f"aiohttp-{loop}",
        )
        for loop in _LOOPS
    ),
    pytest.param(
        Library(
            "urllib3",
            ("http://proxy.example:3128", "{proxy}"),
            lambda scope, url: _by_urllib3(scope["manager"], url),
            _HELLO,
            urllib3.exceptions.SSLError,
            proxied=False,
        ),
        id="urllib3",
    ),
    pytest.param(
        Library(
            "requests",
            ("requests.Session()", "requests.Session()"),
            lambda scope, url: _by_requests(scope["session"], url),
            _HELLO,
            requests.exceptions.SSLError,
        ),
        id="requests",
    ),
    *(
        pytest.param(
            Library(
                "websockets",
                ("wss://api.example.com/feed", "wss://localhost:{}/feed"),
                lambda scope, _, loop=loop: _on(loop, scope["feed"]()),
                _HELLO,
                ssl.SSLCertVerificationError,
            ),
            id=f"websockets-{loop}",
        )
        for loop in _LOOPS
    ),
]
libraries = pytest.mark.parametrize("library", LIBRARIES)


def _by_urllib3(manager, url):
    answer = manager.request("GET", url, timeout=20).data.decode()
    manager.clear()
    return answer


def _by_requests(session, url):
    with session:
        return session.get(url, timeout=20).text


def _use(library, context, port, proxy="http://127.0.0.1:9"):
    old, new = library.replace
    scope = recipe(library.section, {old: new.format(port, proxy=proxy)}, context=context)
    return library.use(scope, f"https://localhost:{port}/")


@libraries
def test_right_pin(library, web, pins):
    """With a right pin the lines do what they do without pins."""
    assert library.answer in _use(library, pinned_ssl_context(pins), web.ports[0])


@libraries
@pytest.mark.parametrize("server", ["genuine", "rogue"])
def test_wrong_pin(library, server, web, pins, wrong, relay, tls_records):
    """A key that is not pinned: refused in so many handshakes, and on the wire a ClientHello and nothing more of ours."""
    number = ("genuine", "rogue").index(server)
    policy = wrong if server == "genuine" else pins
    before = web.log.size()
    with relay(web.ports[number]) as wire:
        with pytest.raises(library.error) as caught:
            _use(library, pinned_ssl_context(policy), wire.port)
        hellos = [tls_records(sent) for sent in wire.captured()]
    found = refusal(caught.value)
    assert isinstance(found, PinMismatchError)
    assert found.verdict.outcome is Outcome.MISMATCHED
    assert len(hellos) == library.attempts
    for records in hellos:
        assert [(kind, body[0]) for kind, body in records][:1] == [(22, 1)]
        assert sum(kind == 22 and body[0] == 1 for kind, body in records) == 1
    assert web.log.text(before) == ""
    assert library.answer in _use(library, ssl.create_default_context(), web.ports[number])


@pytest.mark.parametrize("library", [param for param in LIBRARIES if param.values[0].proxied])
def test_interceptor(library, web, pins, interceptor, monkeypatch):
    """A plain context is read along with on the road through the interceptor; a pinned one is not, on the same road."""
    monkeypatch.setenv("HTTPS_PROXY", interceptor.url)
    port = web.ports[0]
    assert library.answer in _use(library, ssl.create_default_context(), port)
    assert interceptor.intercepted["localhost"].startswith(b"GET /")
    interceptor.intercepted.clear()
    with pytest.raises(Exception) as caught:
        _use(library, pinned_ssl_context(pins), port)
    found = refusal(caught.value)
    assert isinstance(found, PinMismatchError)
    assert "Rogue Root" in found.verdict.chain[-1].subject
    assert interceptor.intercepted == {}


def test_urllib3_through_the_interceptor(web, pins, interceptor):
    """urllib3 does not read the environment: the second line of its section goes through the proxy."""

    def through_proxy(context):
        scope = recipe("urllib3", {"http://proxy.example:3128": interceptor.url}, context=context)
        return _by_urllib3(scope["behind_proxy"], f"https://localhost:{web.ports[0]}/")

    assert through_proxy(ssl.create_default_context()) == "hello"
    interceptor.intercepted.clear()
    with pytest.raises(urllib3.exceptions.SSLError) as caught:
        through_proxy(pinned_ssl_context(pins))
    assert isinstance(refusal(caught.value), PinMismatchError)
    assert interceptor.intercepted == {}


@pytest.mark.parametrize("loop", _LOOPS)
def test_start_tls_through_the_interceptor(loop, web, pins, interceptor):
    """``StreamWriter.start_tls`` after a CONNECT by hand."""

    async def ask(context):
        host, port = interceptor.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, port)
        try:
            target = f"localhost:{web.ports[0]}"
            writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(context, server_hostname="localhost")
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return await reader.read()
        finally:
            writer.close()

    assert _on(loop, ask(ssl.create_default_context())).endswith(b"hello")
    interceptor.intercepted.clear()
    with pytest.raises(PinMismatchError):
        _on(loop, ask(pinned_ssl_context(pins)))
    assert interceptor.intercepted == {}


def test_urllib3_retries_by_default(web, wrong, relay):
    """What the page says of urllib3's default: four handshakes, and a MaxRetryError."""
    with relay(web.ports[0]) as wire:
        with urllib3.PoolManager(ssl_context=pinned_ssl_context(wrong)) as manager:
            with pytest.raises(urllib3.exceptions.MaxRetryError) as caught:
                manager.request("GET", f"https://localhost:{wire.port}/")
        assert len(wire.captured()) == 4
    assert isinstance(refusal(caught.value), PinMismatchError)


def test_requests_without_verification(web, pins):
    """``verify=False`` of requests cannot be had with this context: ``ssl`` refuses to lower it while names are checked."""
    before = web.log.size()
    session = recipe("requests", {}, context=pinned_ssl_context(pins))["session"]
    with session, warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        with pytest.raises(ValueError, match="CERT_NONE"):
            session.get(f"https://localhost:{web.ports[0]}/", verify=False, timeout=20)
    assert web.log.text(before) == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"assert_hostname": False}, "check_hostname of the context was switched off"),
        ({"assert_hostname": "localhost"}, "check_hostname of the context was switched off"),
        ({"cert_reqs": "CERT_OPTIONAL"}, "verify_mode of the context was lowered"),
        ({"cert_reqs": "CERT_NONE", "assert_hostname": False}, "CERT_NONE"),
    ],
)
def test_urllib3_options_that_weaken_the_context(options, reason, web, pins):
    """urllib3 takes what it is told out on the context it is given: the handshake is refused with the reason."""
    before = web.log.size()
    with urllib3.PoolManager(ssl_context=pinned_ssl_context(pins), retries=False, **options) as manager:
        with pytest.raises((urllib3.exceptions.SSLError, ValueError), match=reason) as caught:
            manager.request("GET", f"https://localhost:{web.ports[0]}/")
    assert isinstance(caught.value, ValueError) or isinstance(refusal(caught.value), UnverifiedChainError)
    assert web.log.text(before) == ""


def test_websockets_gives_up(web, wrong, relay):
    """The iterator that reconnects gives up on a wrong pin, after one handshake, as the lines tell it to."""
    with relay(web.ports[0]) as wire:
        replace = {"wss://api.example.com/feed": f"wss://localhost:{wire.port}/feed"}
        scope = recipe("websockets", replace, context=pinned_ssl_context(wrong))
        with pytest.raises(PinMismatchError):
            asyncio.run(asyncio.wait_for(scope["follow"](), 20))
        assert len(wire.captured()) == 1
