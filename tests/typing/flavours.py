"""
Uses of the blocking clients and of httpx2 that type checkers must accept. Never executed.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator

import httpx
import httpx2

import pinset
import pinset.httpx
import pinset.httpx2
from pinset import PinnedClient, PinnedTransport, PinSet, Policy, Verdict, pinned_ssl_context

PINS = {"api.example.com": ["sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="]}


def blocking(context: ssl.SSLContext, body: Iterable[bytes]) -> Iterator[bytes]:
    with PinnedClient(
        PINS,
        verify=context,
        http2=True,
        auth=("user", "password"),
        proxy=httpx.Proxy("socks5://127.0.0.1:1080"),
        mounts={"all://*.example.com": PinnedTransport(PINS, retries=2), "all://plain.example.com": None},
        timeout=httpx.Timeout(5.0, connect=1.0),
        limits=httpx.Limits(max_connections=10),
        event_hooks={"response": [lambda response: response.raise_for_status()]},
        base_url="https://api.example.com",
        session_resumption=False,
    ) as pinned:
        plain: httpx.Client = pinned
        pinned.pinner.replace(PINS)
        try:
            plain.post("/upload", content=body).raise_for_status()
        except pinset.httpx.PinMismatchError as error:
            transport_error: httpx.TransportError = error
            pin_error: pinset.PinMismatchError = error
            _ = (transport_error.request, pin_error.verdict)
        with plain.stream("GET", "/download") as response:
            verdict: Verdict = response.extensions["pinset"]
            _ = verdict.matched
            yield from response.iter_bytes()


def transports() -> list[httpx.BaseTransport]:
    return [PinnedTransport(PINS, uds="/run/socket", cert=("chain.pem", "key.pem"))]


async def second_flavour() -> None:
    async with pinset.httpx2.PinnedAsyncClient(PINS, http2=True) as client:
        plain: httpx2.AsyncClient = client
        response: httpx2.Response = await plain.get("https://api.example.com/")
        _ = response.extensions["pinset"]
    with pinset.httpx2.PinnedClient(PINS, proxy=httpx2.Proxy("http://127.0.0.1:3128")) as blocking_client:
        other: httpx2.Client = blocking_client
        try:
            other.get("https://api.example.com/")
        except pinset.httpx2.PinMismatchError as error:
            transport_error: httpx2.TransportError = error
            _ = transport_error.request
    stock = httpx2.AsyncClient(transport=pinset.httpx2.PinnedAsyncTransport(PINS))
    await stock.aclose()
    httpx2.Client(transport=pinset.httpx2.PinnedTransport(PINS)).close()


def self_signed() -> tuple[ssl.SSLContext, httpx.Client]:
    policy = Policy([PinSet(name="device.example.com", leaf_pins=PINS["api.example.com"], allow_single_pin=True)])
    return pinned_ssl_context(policy, trust="pins-only"), PinnedClient(policy, trust="pins-only")


def refused() -> None:
    # What a type checker says no to; an ignore without effect would be an error in itself.
    PinnedClient(PINS, verify=False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PinnedClient(PINS, transport=httpx.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PinnedClient(PINS, trust="anybody")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pinset.httpx2.PinnedClient(PINS, proxy=httpx.Proxy("http://p:1"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
