"""
Connections that break off at any byte, and connections that trickle.
"""

from __future__ import annotations

import ssl

import pytest
from cuts import cutting, outcome, sweep
from peers import LOOPS, origin_context

from pinset import Pinner
from pinset._tls_layer import OriginContext

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
every_loop = pytest.mark.parametrize("loop", LOOPS)
both_versions = pytest.mark.parametrize("tls", VERSIONS)


@pytest.fixture
def origin(genuine, rogue, pins) -> OriginContext:
    """What httpcore is given for a pinned origin."""
    return origin_context(Pinner(pins), genuine.client_context(rogue))


@every_loop
@both_versions
@pytest.mark.parametrize("cut", ["FIN", "RST"])
def test_cut_anywhere(loop, tls, cut, leaf, origin) -> None:
    """Wherever the server is cut off, httpcore's errors say so, none hangs, and only a whole answer is complete."""

    async def run() -> None:
        outcomes = await sweep(leaf.server_context(tls=tls), origin, cut, 41)
        order = ["ConnectError", "late", "complete"]
        stages = ["late" if name in ("ReadError", "WriteError", "cut") else name for name in outcomes]
        assert set(stages) <= set(order)
        assert stages[-1] == "complete"
        if cut == "FIN":  # a RST overtakes what the kernel has not sent yet
            assert stages == sorted(stages, key=order.index)
            assert set(stages) == set(order)

    LOOPS[loop](run)


@every_loop
@both_versions
@pytest.mark.parametrize("cut", ["FIN", "RST"])
def test_an_impostor_cut_anywhere(loop, tls, cut, impostor, origin) -> None:
    """An impostor is refused as soon as its flight is complete; before that there is nothing to say about it."""

    async def run() -> None:
        outcomes = await sweep(impostor.server_context(tls=tls), origin, cut, 83)
        assert set(outcomes) == {"ConnectError", "PinMismatchError"}
        assert outcomes[-1] == "PinMismatchError"
        if cut == "FIN":
            assert outcomes == sorted(outcomes)

    LOOPS[loop](run)


@every_loop
@both_versions
@pytest.mark.parametrize("crumb", [1, 7])
def test_crumbs(loop, tls, crumb, leaf, impostor, origin) -> None:
    """A server that trickles gets the same verdict."""

    async def run() -> None:
        for identity, expected in ((leaf, "complete"), (impostor, "PinMismatchError")):
            with cutting(identity.server_context(tls=tls)) as (scissors, relay):
                scissors.crumb = crumb
                assert await outcome(relay.port, origin) == expected

    LOOPS[loop](run)
