"""
Thousands of failures: the one place is free, nothing is left, and memory stays where it was.
"""

from __future__ import annotations

import gc
import os

import anyio
import anyio.lowlevel
import httpx
import pytest
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import Scripted, wait_for
from stages import ONE

import pinset

pytestmark = pytest.mark.integration

loops = pytest.mark.parametrize("loop", LOOPS)
MEBIBYTE = 1 << 20


def resident():
    """The bytes of this process that are in memory."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read as it is
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def silent(peer):
    peer.receive()
    peer.stall()


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@loops
def test_a_thousand_failures_and_a_thousand_cancellations(lab, loop, http2):
    """At one connection; then a good request is answered at once."""
    good, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))
    refused = lab.path("refused")

    async def run():
        watch = Watch()
        transport = pinset.PinnedAsyncTransport(lab.pins(good), verify=lab.context(), limits=ONE, http2=http2)
        async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(20, pool=5)) as client:
            for _ in range(1000):
                with pytest.raises(pinset.PinMismatchError):
                    await client.get(rogue.url(refused))
            assert counts(transport) == (0, 0, 0, 0)
            with Scripted(silent) as server:
                for number in range(1000):
                    async with anyio.create_task_group() as group:
                        group.start_soon(client.get, server.url())
                        if number % 10:  # most of them in the midst of connecting
                            for _ in range(number % 10):
                                await anyio.lowlevel.checkpoint()
                        else:
                            await wait_for(lambda: server.stalls, "a ClientHello")
                        group.cancel_scope.cancel()
                    assert counts(transport) == (0, 0, 0, 0)
                await wait_for(lambda: not server.open, "the server to see the end")
            assert (await client.get(good.url(lab.path("good")))).status_code == 200
        await watch.assert_nothing_left()

    with collector_off():
        LOOPS[loop](run)
    assert not rogue.has_seen(refused)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_memory_after_failures(lab, loop):
    """Two thousand refusals cost less than a mebibyte, and no socket."""
    good, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))

    async def run():
        watch = Watch()
        transport = pinset.PinnedAsyncTransport(lab.pins(good), verify=lab.context(), limits=ONE)
        async with httpx.AsyncClient(transport=transport, timeout=20) as client:

            async def fail(times):
                for _ in range(times):
                    with pytest.raises(pinset.PinMismatchError):
                        await client.get(rogue.url("/refused"))

            await fail(500)
            before = resident()
            await fail(2000)
            grown = resident() - before
            assert watch.leaked() == 0
        assert grown < MEBIBYTE

    LOOPS[loop](run)


@pytest.mark.parametrize("retries", [0, 5])
@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@loops
def test_one_handshake_per_pin_failure(lab, relay, loop, http2, retries):
    """retries= is for what failed to connect."""
    good, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))

    async def run():
        transport = pinset.PinnedAsyncTransport(
            lab.pins(good), verify=lab.context(), limits=ONE, http2=http2, retries=retries
        )
        async with httpx.AsyncClient(transport=transport, timeout=20) as client:
            with relay(rogue.port) as wire:
                with pytest.raises(pinset.PinMismatchError):
                    await client.get(f"https://localhost:{wire.port}/")
                assert len(wire.captured()) == 1

    LOOPS[loop](run)


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@loops
def test_a_burst_to_a_refused_host(lab, relay, loop, http2):
    """A hundred requests at once, thrice: the first time they may not know better, then one handshake speaks for all."""
    good, rogue = (lab.origins["ec", "TLSv1.3", side] for side in ("genuine", "rogue"))

    async def run():
        transport = pinset.PinnedAsyncTransport(
            lab.pins(good), verify=lab.context(), limits=httpx.Limits(max_connections=100), http2=http2
        )
        errors = []
        async with httpx.AsyncClient(transport=transport, timeout=20) as client:

            async def get(url):
                with pytest.raises(pinset.PinMismatchError) as caught:
                    await client.get(url)
                errors.append(caught.value)

            with relay(rogue.port) as wire:
                handshakes = []
                for _ in range(3):
                    before = len(wire._captured)
                    async with anyio.create_task_group() as group:
                        for number in range(100):
                            group.start_soon(get, f"https://localhost:{wire.port}/{number}")
                    handshakes.append(len(wire.captured()) - before)
            assert handshakes[0] <= (1 if http2 else 100)
            assert handshakes[1:] == [1, 1]
            # Everybody has an error of their own, with their own request.
            assert len({id(error) for error in errors}) == 300
            assert len({error.request.url.path for error in errors}) == 100
            assert counts(transport) == (0, 0, 0, 0)

    LOOPS[loop](run)
