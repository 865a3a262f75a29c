"""
Uses of the public interface that type checkers must accept. Never executed.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable

import httpx

from pinset import (
    Mode,
    OnExpiry,
    Pin,
    PinKind,
    PinMismatchError,
    PinnedAsyncClient,
    PinnedAsyncTransport,
    PinnedClient,
    Pinner,
    PinSet,
    PinSource,
    Policy,
    Unlisted,
    Verdict,
    evaluate,
    load_policy,
    pinned_ssl_context,
)
from pinset.reports import (
    CallbackReports,
    HTTPReports,
    JSONLinesReports,
    LogReports,
    OpenTelemetryReports,
    PinReport,
    Reporter,
)
from pinset.testing import Contact, HTTPSServer, Interceptor, Reaction
from pinset.updates import SourceStatus, TufPinSource

PINS = {"api.example.com": ["sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="]}


async def client() -> Verdict | None:
    async with PinnedAsyncClient(PINS, http2=True, timeout=30, base_url="https://api.example.com") as pinned:
        plain: httpx.AsyncClient = pinned
        try:
            response: httpx.Response = await plain.get("/user/profile")
        except PinMismatchError as error:
            return error.verdict
        pinned.pinner.replace(load_policy("pins.toml"))
        verdict: Verdict = response.extensions["pinset"]
        return verdict


def observe(verdict: Verdict) -> None:
    _ = (verdict.explain(), verdict.outcome, verdict.decision)


def reports() -> int:
    async def told(report: PinReport) -> None:
        _ = (report.hostname, report.to_dict()["known-pins"], report.verdict.outcome)

    sinks = [LogReports(), HTTPReports("https://reports.example.net/"), CallbackReports(told), CallbackReports(print)]
    pinner = Pinner(PINS, observers=[observe, *sinks])
    with Reporter(JSONLinesReports("pins.jsonl"), window=60, timeout=1) as reporter:
        Pinner(PINS, observers=[reporter, observe])
        Pinner(PINS, observers=[OpenTelemetryReports()]).reporter.close(budget=1)
    return sum(counts.sent for counts in pinner.reporter.counts.values())


def values(der: bytes) -> Verdict:
    pin: Pin = Pin.parse("sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y=")
    backup = Pin.from_certificate(der, kind=PinKind.SPKI)
    pin_set = PinSet(
        name="api.example.com",
        pins=[pin, backup],
        mode=Mode.ENFORCE,
        expires=dt.datetime(2027, 1, 31, tzinfo=dt.UTC),
        on_expiry=OnExpiry.BLOCK,
    )
    policy = Policy((pin_set,), Unlisted.ALLOW)
    return evaluate(policy, "api.example.com", [der], dt.datetime.now(dt.UTC))


def transport(pinner: Pinner) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=PinnedAsyncTransport(pinner, retries=2))


def context(policy: Policy) -> ssl.SSLContext:
    return pinned_ssl_context(Pinner(policy, observers=[observe]), cafile="roots.pem")


async def updates(root: bytes, policy: Policy) -> str:
    def tell(status: SourceStatus) -> None:
        _ = (status.origin, status.expires, status.error.fault if status.error else None)

    source = TufPinSource("https://pins.example.com/", root=root, fallback=policy, cache_dir=None, on_change=tell)
    context: ssl.SSLContext = pinned_ssl_context(source)
    with source, PinnedClient(source) as blocking:
        blocking.get("https://api.example.com/")
    own: PinSource = source
    async with source, PinnedAsyncClient(own) as pinned, PinnedAsyncTransport(source):
        await pinned.get("https://api.example.com/")
        return f"{(await source.refresh()).versions} {context}"


def kit(fetch: Callable[[str], None]) -> list[Contact]:
    with HTTPSServer("localhost", key="rsa", tls="1.3", http2=True) as server:
        pins: dict[str, list[str]] = server.pins
        with Interceptor(upstream=server.client_context(), keep=False) as interceptor:
            with interceptor.control():
                fetch(server.url())
            fetch(str(pins))
            interceptor.assert_refused("localhost", knows_authority=True)
            reaction: Reaction | None = interceptor.reaction("localhost")
            server.rotate(hang_up=reaction is Reaction.REFUSED)
            return list(interceptor.settle(until_closed=True, within=1.0))
