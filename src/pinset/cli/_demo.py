"""
``pinset demo``: an interception that succeeds, the same one refused, and a key rotation that nobody notices.

Everything is thrown away at the end and nothing leaves the loopback interface.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import typer
from rich.console import Console
from rich.table import Table

from pinset import PinMismatchError, PinnedAsyncClient
from pinset.testing import Authority, Identity, Interceptor, TLSServer

_HOST = "localhost"
_SECRET = {"Authorization": "Bearer s3cret"}


@dataclass(frozen=True, slots=True)
class _Stage:
    """The actors: a server with two keys, an interceptor, and what the client trusts and pins."""

    server: TLSServer
    interceptor: Interceptor
    trust: ssl.SSLContext
    in_service: Identity
    backup: Identity

    @property
    def pins(self) -> dict[str, list[str]]:
        return {_HOST: [self.in_service.pin, self.backup.pin]}


@dataclass(frozen=True, slots=True)
class _Scene:
    """What was tried, what came of it, how long it took, and whether that is what pinning promises."""

    title: str
    result: str
    seconds: float
    as_promised: bool


def demo() -> None:
    """
    Watch an interception succeed, watch pins refuse it, and rotate a key. No network, nothing is kept.
    """
    logging.getLogger("pinset").addHandler(logging.NullHandler())  # the refusal is shown once, below
    console = Console(emoji=False)  # a fingerprint may hold ":AB:"
    with console.status("starting a server and an interceptor on the loopback interface"):
        scenes, refusal = asyncio.run(_play())
    console.print(_table(scenes))
    console.rule("what the refused request says")
    console.print(refusal, soft_wrap=True, highlight=False, markup=False)
    console.rule()
    if not all(scene.as_promised for scene in scenes):
        console.print("Something did not go as promised; please report it with the output above.", style="bold red")
        raise typer.Exit(1)
    console.print("Next: put the pins of your own server into PinnedAsyncClient; see docs/tutorial/first-pin.md.")


async def _play() -> tuple[list[_Scene], str]:
    company, genuine = Authority("Company Inspection"), Authority("Public")
    in_service, backup = genuine.issue(_HOST), genuine.issue(_HOST)
    with (
        TLSServer(in_service.server_context()) as server,
        Interceptor(company, upstream=genuine.client_context()) as interceptor,
    ):
        stage = _Stage(server, interceptor, genuine.client_context(company), in_service, backup)
        refusal: list[str] = []
        scenes = [
            await _timed("stock httpx, intercepted by a trusted CA", _stock_is_intercepted, stage),
            await _timed("pinned client, same interceptor", lambda s: _pinned_refuses(s, refusal), stage),
            await _timed("pinned client, direct", _pinned_direct, stage),
            await _timed("pinned client, after the server moved to its backup key", _rotation, stage),
        ]
        return scenes, refusal[0] if refusal else "(nothing was refused)"


async def _timed(title: str, act: Callable[[_Stage], Awaitable[tuple[str, bool]]], stage: _Stage) -> _Scene:
    begin = time.perf_counter()
    result, as_promised = await act(stage)
    return _Scene(title, result, time.perf_counter() - begin, as_promised)


async def _stock_is_intercepted(stage: _Stage) -> tuple[str, bool]:
    async with httpx.AsyncClient(verify=stage.trust, proxy=stage.interceptor.url, trust_env=False) as client:
        response = await client.get(stage.server.url(_HOST), headers=_SECRET)
    stolen = stage.interceptor.intercepted.get(_HOST, b"")
    return (
        f"{response.status_code}; the interceptor read {len(stolen)} bytes, the token among them",
        b"s3cret" in stolen,
    )


async def _pinned_refuses(stage: _Stage, refusal: list[str]) -> tuple[str, bool]:
    before = len(stage.interceptor.intercepted.get(_HOST, b""))
    async with _pinned(stage, proxy=stage.interceptor.url) as client:
        try:
            response = await client.get(stage.server.url(_HOST), headers=_SECRET)
        except PinMismatchError as error:
            refusal.append(str(error))
            read = len(stage.interceptor.intercepted.get(_HOST, b"")) - before
            return f"PinMismatchError; the interceptor read {read} bytes", read == 0
    return f"{response.status_code}: it was intercepted", False


async def _pinned_direct(stage: _Stage) -> tuple[str, bool]:
    async with _pinned(stage) as client:
        response = await client.get(stage.server.url(_HOST), headers=_SECRET)
    return _matched(response, stage.in_service)


async def _rotation(stage: _Stage) -> tuple[str, bool]:
    stage.server.replace_context(stage.backup.server_context())
    async with _pinned(stage) as client:
        response = await client.get(stage.server.url(_HOST), headers=_SECRET)
    return _matched(response, stage.backup)


@asynccontextmanager
async def _pinned(stage: _Stage, proxy: str | None = None) -> AsyncIterator[PinnedAsyncClient]:
    async with PinnedAsyncClient(stage.pins, verify=stage.trust, proxy=proxy, trust_env=False) as client:
        yield client


def _matched(response: httpx.Response, expected: Identity) -> tuple[str, bool]:
    pins = [str(pin) for pin in response.extensions["pinset"].matched]
    return f"{response.status_code}; matched {pins[0][:20]}…", pins == [expected.pin]


def _table(scenes: list[_Scene]) -> Table:
    table = Table(title="pinset demo", show_lines=False)
    table.add_column("who")
    table.add_column("what happened")
    table.add_column("time", justify="right")
    table.add_column("as promised")
    for scene in scenes:
        mark = "[green]yes[/]" if scene.as_promised else "[bold red]no[/]"
        table.add_row(scene.title, scene.result, f"{scene.seconds * 1000:.1f} ms", mark)
    return table
