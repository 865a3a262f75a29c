"""
The server's stream ends after every third byte of a request, in good order and with RST: no hang, and no error but httpx's.
"""

from __future__ import annotations

import itertools
import select
import socket

import httpx
import pytest
from leftovers import LOOPS, Watch, collector_off, counts
from scripted import Scripted

import pinset

pytestmark = pytest.mark.integration


class Cutter:
    """
    The script of a relay to *port* that passes on *limit* bytes of what the server says, and then closes.

    Attributes:
        passed: How many bytes the last connection passed on.
    """

    def __init__(self, port, *, reset):
        self._port = port
        self._reset = reset
        self.limit = 1 << 30
        self.passed = 0

    def __call__(self, peer):
        left = self.limit
        self.passed = 0
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            while left:
                for source in select.select([peer.raw, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is peer.raw:
                        server.sendall(data)
                    else:
                        peer.send(data[:left])
                        self.passed += len(data[:left])
                        left -= len(data[:left])
            peer.close(reset=self._reset)


def stage(outcome):
    """How far a request came: connecting, answering, answered, or refused by pins."""
    if isinstance(outcome, httpx.Response):
        assert (outcome.status_code, outcome.text) == (200, "hello")
        return 2
    if isinstance(outcome, pinset.PinMismatchError):
        return 1
    if isinstance(outcome, httpx.ConnectError):
        return 0
    assert isinstance(outcome, (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)), repr(outcome)
    return 1


@pytest.mark.parametrize(
    ("loop", "http2", "step"),
    [
        pytest.param("asyncio", False, 3, id="asyncio-h1"),
        pytest.param("uvloop", False, 13, id="uvloop-h1"),
        pytest.param("trio", False, 13, id="trio-h1"),
        pytest.param("asyncio", True, 13, id="asyncio-h2"),
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("pin", ["right", "wrong"])
def test_cut_anywhere(lab, pin, version, reset, loop, http2, step):
    """With one place in the pool: connecting fails, then answering, then there is an answer; and nothing is left."""
    origin = lab.origins["ec", version, "genuine"]
    path = lab.path("cut")
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
    pins = lab.pins(origin, "leaf" if pin == "right" else "none")
    if pin == "wrong":
        step *= 5

    async def run():
        transport = pinset.PinnedAsyncTransport(
            pins, verify=lab.context(), limits=limits, http2=http2, session_resumption=False
        )
        cutter = Cutter(origin.port, reset=reset)
        with Scripted(cutter) as relay:
            watch = Watch(relay.port)
            async with httpx.AsyncClient(transport=transport, timeout=20) as client:

                async def request():
                    try:
                        return await client.get(relay.url(path))
                    except httpx.HTTPError as error:
                        return error

                stages = [stage(await request())]
                assert stages == [2 if pin == "right" else 1]
                whole = cutter.passed
                assert whole > 1000
                for cutter.limit in itertools.chain(range(0, whole, step), (2 * whole,)):
                    stages.append(stage(await request()))
                assert counts(transport) == (0, 0, 0, 0)
            assert relay.connections == len(stages)
        await watch.assert_nothing_left()
        return stages[1:]

    stages = LOOPS[loop](run) if http2 else _collected(loop, run)
    # Signatures differ by a byte or two, and RST overtakes what lies unread, so the steps have no exact place.
    assert not any(stages[: len(stages) // 3])
    assert stages[-1] == (2 if pin == "right" else 1)
    assert pin == "wrong" or reset or step > 3 or 1 in stages
    assert pin == "right" or not origin.has_seen(path)


def _collected(loop, run):
    with collector_off():
        return LOOPS[loop](run)
