"""
GOAWAY and SETTINGS on their way through: what httpcore gets to see of them.
"""

from __future__ import annotations

import asyncio
import itertools

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httpcore
import hyperframe.frame as frames
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinset._http2 import FrameStream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def settings(**values: int) -> bytes:
    named = {"max_streams": frames.SettingsFrame.MAX_CONCURRENT_STREAMS, "window": 4}
    return frames.SettingsFrame(settings={named[name]: value for name, value in values.items()}).serialize()


def goaway(last: int, error: int = 0, data: bytes = b"") -> bytes:
    return frames.GoAwayFrame(last_stream_id=last, error_code=error, additional_data=data).serialize()


def headers(stream: int, size: int = 5) -> bytes:
    return frames.HeadersFrame(stream, b"h" * size, flags=["END_HEADERS"]).serialize()


def data(stream: int, size: int = 50) -> bytes:
    return frames.DataFrame(stream, b"d" * size).serialize()


def reset(stream: int, error: int = 7) -> bytes:
    return frames.RstStreamFrame(stream, error_code=error).serialize()


class Script(httpcore.AsyncNetworkStream):
    """The network: says what it is told, and keeps what it hears."""

    def __init__(self, said: list[bytes]) -> None:
        self.said = said
        self.heard = b""
        self.closed = False

    async def read(self, max_bytes, timeout=None):
        return self.said.pop(0) if self.said else b""

    async def write(self, buffer, timeout=None):
        self.heard += buffer

    async def aclose(self):
        self.closed = True

    async def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        return self

    def get_extra_info(self, info):
        return f"the {info}"


def run(said: list[bytes], *written: bytes) -> tuple[bytes, FrameStream, list[str]]:
    """What is shown of *said* after *written* was sent, and what was noticed."""
    noticed: list[str] = []
    stream = FrameStream(Script(said), lambda: noticed.append("changed"))

    async def all_of_it() -> bytes:
        for buffer in written:
            await stream.write(buffer)
        shown = b""
        while part := await stream.read(65_536):
            shown += part
        return shown

    return asyncio.run(all_of_it()), stream, noticed


class TestFrames:
    """`FrameStream`."""

    def test_everything_else_passes_unchanged(self) -> None:
        """Frames that say nothing about the connection are shown as they came."""
        said = settings(window=10) + headers(1) + data(1, 40_000) + reset(3, 8) + b""
        assert run([said])[0] == said

    def test_settings(self) -> None:
        """One stream until the server has spoken, and no more than httpcore opens after that."""
        stream = FrameStream(Script([]), lambda: None)
        assert stream.max_streams == 1
        assert run([settings(window=10)])[1].max_streams == 100
        assert run([settings(max_streams=7)])[1].max_streams == 7
        assert run([settings(max_streams=1_000)])[1].max_streams == 100
        assert run([settings(max_streams=7), settings(max_streams=0)])[1].max_streams == 7
        shown, stream, noticed = run([settings(max_streams=7), settings(max_streams=9, window=3)])
        assert shown == settings(max_streams=7) + settings(max_streams=9, window=3)
        assert stream.max_streams == 9
        assert noticed == ["changed", "changed"]

    def test_acknowledgement_is_no_setting(self) -> None:
        """An ACK says nothing about streams."""
        ack = frames.SettingsFrame(flags=["ACK"]).serialize()
        shown, stream, noticed = run([ack])
        assert (shown, stream.settled, noticed) == (ack, False, [])

    def test_goaway_is_withheld_from_accepted_streams(self) -> None:
        """The server will answer streams 1 and 3, and httpcore hears of nothing."""
        shown, stream, noticed = run([goaway(3), headers(1), data(3)], PREFACE + headers(1) + headers(3))
        assert shown == headers(1) + data(3)
        assert stream.draining
        assert noticed == ["changed"]

    def test_goaway_refuses_later_streams(self) -> None:
        """Streams 5 and 7 were not processed, and each is told so."""
        sent = PREFACE + headers(1) + headers(3) + headers(5) + data(5) + headers(7)
        shown, _, _ = run([headers(1) + goaway(3, data=b"bye") + data(3)], sent)
        assert shown == headers(1) + reset(5) + reset(7) + data(3)

    def test_nothing_was_accepted(self) -> None:
        """A last stream of zero refuses every stream; httpcore takes it for none."""
        assert run([goaway(0)], headers(1) + headers(3))[0] == reset(1) + reset(3)

    def test_announced_end(self) -> None:
        """First the highest number there is, then the last stream: only the second refuses, and once."""
        end = 2**31 - 1
        shown, stream, noticed = run(
            [goaway(end), goaway(3), goaway(3), goaway(1)], headers(1) + headers(3) + headers(5)
        )
        assert shown == reset(5) + reset(3)
        assert noticed == ["changed"] * 4
        assert stream.draining

    def test_stream_on_its_way_when_goaway_came(self) -> None:
        """A stream that is opened after GOAWAY was read is refused at the next read."""

        async def scenario() -> bytes:
            stream = FrameStream(Script([goaway(1) + data(1)]), lambda: None)
            await stream.write(headers(1))
            assert await stream.read(65_536) == data(1)
            await stream.write(headers(3))
            await stream.write(data(3))
            return await stream.read(65_536)

        assert asyncio.run(scenario()) == reset(3)

    @given(cuts=st.lists(st.integers(1, 400), max_size=30))
    def test_split_anywhere(self, cuts) -> None:
        """Where the network cuts the stream makes no difference."""
        said = (
            settings(max_streams=5)
            + headers(1)
            + data(1, 200)
            + goaway(3, data=b"reason")
            + data(3)
            + goaway(1)
            + data(1)
        )
        sent = PREFACE + headers(1) + headers(3) + headers(5)
        edges = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
        pieces = [said[a:b] for a, b in itertools.pairwise(edges)]
        shown, stream, noticed = run(pieces, sent)
        assert shown == settings(max_streams=5) + headers(1) + data(1, 200) + reset(5) + data(3) + reset(3) + data(1)
        assert stream.max_streams == 5
        assert len(noticed) == 3

    def test_byte_by_byte(self) -> None:
        """The finest cut of all."""
        said = settings(max_streams=5) + goaway(1) + data(1)
        assert run([said[i : i + 1] for i in range(len(said))], headers(3))[0] == settings(max_streams=5) + reset(
            3
        ) + data(1)

    def test_oversized_goaway_is_left_to_h2(self) -> None:
        """We hold back no more than a frame may have; the rest is an error that h2 finds."""
        huge = (20_000).to_bytes(3, "big") + bytes([7, 0]) + bytes(4) + bytes(20_000)
        shown, stream, _ = run([huge[:100], huge[100:], data(1)])
        assert shown == huge + data(1)
        assert not stream.draining

    def test_end_within_a_frame(self) -> None:
        """A connection that ends in the middle of GOAWAY ends."""
        assert run([data(1) + goaway(1)[:12]])[0] == data(1)

    def test_rest_of_the_interface(self) -> None:
        """Closing, TLS and information are the stream's below."""

        async def scenario() -> None:
            below = Script([])
            stream = FrameStream(below, lambda: None)
            assert await stream.start_tls(None) is below
            assert stream.get_extra_info("socket") == "the socket"
            await stream.aclose()
            assert below.closed

        asyncio.run(scenario())


def test_why_it_is_needed() -> None:
    """h2 takes no answer after GOAWAY, although the server is bound to give it."""
    client = h2.connection.H2Connection(config=h2.config.H2Configuration())
    client.initiate_connection()
    request = [(":method", "GET"), (":authority", "a.test"), (":scheme", "https"), (":path", "/")]
    client.send_headers(1, request, end_stream=True)
    server = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200")], end_stream=True)
    answer = server.data_to_send()
    client.receive_data(goaway(1))
    with pytest.raises(h2.exceptions.ProtocolError):
        client.receive_data(answer)
