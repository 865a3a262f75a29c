"""
The benchmarks of requests against nginx: who is let in, and what is counted.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from benchmarks import peers, wire
from benchmarks._common import ROOT
from benchmarks._stacks import STACKS
from benchmarks._workers import start

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, str(ROOT / "benchmarks" / "_python_peer.py")]
VARIANTS = {name: peers.Variant(name, stack, pinned) for stack in STACKS for name, pinned in stack.variants()}
OURS = [name for name in VARIANTS if name.startswith("pinset on")]


@pytest.fixture(name="nginx")
def find_nginx(require_program) -> str:
    """The program, wherever it is."""
    return require_program("nginx")


@pytest.fixture(name="servers")
def serve_sites(nginx: str) -> Iterator[tuple[ExitStack, dict[str, dict[str, object]]]]:
    """The genuine server and the attacks, and where to put the clients."""
    with ExitStack() as stack:
        yield stack, peers._serve(stack, nginx)


def refused(servers: tuple[ExitStack, dict[str, dict[str, object]]], name: str) -> set[str]:
    """What a stack refuses."""
    stack, configs = servers
    worker = peers._start(stack, COMMAND, VARIANTS[name], configs["genuine"])
    return {what for what, found in peers._verifies(worker, configs).items() if not found["accepted"]}


def test_pinset_refuses_every_attack(servers: tuple[ExitStack, dict[str, dict[str, object]]]) -> None:
    """The genuine server is let in, and no other, by each of our clients."""
    for name in OURS:
        assert refused(servers, name) == set(peers._ATTACKS), name


def test_attacks_succeed_against_a_client_without_pins(
    servers: tuple[ExitStack, dict[str, dict[str, object]]],
) -> None:
    """Stock httpx cares for no pin; a fingerprint in aiohttp switches verification off."""
    assert refused(servers, "httpx") == {"an unknown CA", "a wrong name"}
    if importlib.util.find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed")
    assert refused(servers, "aiohttp, pinned") == {"a wrong pin"}


def test_cold_requests_are_cold_and_resumed_as_named(
    servers: tuple[ExitStack, dict[str, dict[str, object]]],
) -> None:
    """By the word of nginx: every request of a resuming client came over a resumed session, and of another none."""
    stack, configs = servers
    for name, share in (("pinset on httpx", 1.0), ("pinset on httpx, no resumption", 0.0), ("httpx", 0.0)):
        worker = peers._start(stack, COMMAND, VARIANTS[name], configs["genuine"])
        taken = worker.ask({"kind": "cold", "requests": 6})
        assert (taken["resumed"], len(taken["own"])) == (share, 6), name


@pytest.mark.parametrize("server", [("EC", "TLSv1.3"), ("EC", "TLSv1.3 and HTTP/2")])
def test_wire_counts_the_requests_it_was_told(nginx: str, server: tuple[str, str]) -> None:
    """As many times as requests, over the version of HTTP that was asked for, or there is no answer."""
    with wire._server(nginx) as configs:
        config = {**configs[server], "variant": "pinned", "loop": "asyncio"}
        with start([sys.executable, "-m", "benchmarks._client"], config) as worker:
            taken = worker.ask({"kind": "warm", "requests": 40, "concurrency": 4})
            assert len(taken["own"]) == 40


def test_wire_takes_no_other_version_of_http(nginx: str) -> None:
    """A client that falls back to HTTP/1.1 gives no sample of HTTP/2."""
    with wire._server(nginx) as configs:
        config = {**configs["EC", "TLSv1.3"], "variant": "stock", "loop": "asyncio", "http2": True}
        with start([sys.executable, "-m", "benchmarks._client"], config) as worker:
            with pytest.raises(RuntimeError, match="a client process has ended"):
                worker.ask({"kind": "warm", "requests": 1})
