"""
The server's stream cut at every single byte.
"""

from __future__ import annotations

import ssl

import pytest
from cuts import sweep
from peers import LOOPS, origin_context

from pinset import Pinner

pytestmark = pytest.mark.integration
STAGES = {"ConnectError", "ReadError", "WriteError", "cut", "complete"}


@pytest.mark.parametrize("cut", ["FIN", "RST"])
@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_byte(tls, cut, leaf, genuine, pins) -> None:
    """Only httpcore's errors, no hang, and nothing but a whole answer is complete."""
    origin = origin_context(Pinner(pins), genuine.client_context())

    async def run() -> None:
        outcomes = await sweep(leaf.server_context(tls=tls), origin, cut, 1)
        assert len(outcomes) > 1000
        assert set(outcomes) <= STAGES
        assert outcomes[-1] == "complete"

    LOOPS["asyncio"](run)
