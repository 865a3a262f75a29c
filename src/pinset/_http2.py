"""
What HTTP/2 says about the connection itself, read on its way through: SETTINGS, GOAWAY and refused streams.

h2 and httpcore give up every stream of a connection as soon as GOAWAY arrives, also those that the server is about to
answer: nginx sends it before its thousandth response, so one request in a thousand fails. `FrameStream` stands between
httpcore and the network and shows them GOAWAY as what it means for each stream (RFC 9113 section 6.8): nothing for those
that the server accepted, and REFUSED_STREAM, "not processed" (section 8.7), for the later ones. The pool looks at
`draining` and opens no further stream.

Only frame headers are read (section 4.1: length 24 bits, type 8, flags 8, stream 31), and nothing else is altered.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpcore

from pinset._tasks import MOST_STREAMS

if TYPE_CHECKING:
    from pinset._tls_layer import OriginContext

REFUSED_STREAM = 0x7
"""The error code that promises that the server has not processed a stream (RFC 9113 section 7)."""

_HEADER = 9
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4
_HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0x1, 0x3, 0x4, 0x7
_ACK = 0x1
_MAX_CONCURRENT_STREAMS = 0x3
_MAX_FRAME = 16_384  # section 4.2; none of them has reason to be larger, and we buffer no more than that


class FrameStream(httpcore.AsyncNetworkStream):
    """
    A network stream that carries HTTP/2 frames and understands three of them.

    Args:
        stream: The connection below.
        on_change: Called when `max_streams` or `draining` has changed.

    Attributes:
        settled: The server's first SETTINGS have arrived.
        draining: The server accepts no further streams.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, on_change: Callable[[], None]) -> None:
        self._stream = stream
        self._on_change = on_change
        self._held = b""  # the beginning of a frame that is looked at whole
        self._passing = 0  # bytes of the present frame's payload still to be passed on
        self._injected = b""
        self._highest_opened = 0
        self._last_accepted = 0x7FFF_FFFF
        self._refused = 0
        self._limit = MOST_STREAMS
        self.settled = False
        self.draining = False

    @property
    def max_streams(self) -> int:
        """
        How many streams may be open at once; one until the server has said so, as in httpcore.
        """
        return self._limit if self.settled else 1

    @property
    def has_served(self) -> bool:
        """
        Whether the server has ended the connection, but not before it processed a stream.
        """
        # The numbers of our streams are odd (section 5.1.1). A server may accept a stream by GOAWAY and refuse it by
        # RST_STREAM, so the one without the other proves nothing.
        accepted = (min(self._last_accepted, self._highest_opened) + 1) // 2
        return self.draining and accepted > self._refused

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        """See `httpcore.AsyncNetworkStream.read`."""
        while not self._injected:
            data = await self._stream.read(max_bytes, timeout)
            if not data:
                break
            if shown := self._inspect(data):
                return shown
        shown, self._injected = self._injected, b""
        return shown

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's interface
        """See `httpcore.AsyncNetworkStream.write`."""
        # httpcore writes whole frames, what h2 gives it.
        at = len(_PREFACE) if buffer.startswith(_PREFACE) else 0
        while at < len(buffer):
            if buffer[at + 3] == _HEADERS:
                self._opened(int.from_bytes(buffer[at + 5 : at + 9], "big"))
            at += _HEADER + int.from_bytes(buffer[at : at + 3], "big")
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """See `httpcore.AsyncNetworkStream.aclose`."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext | OriginContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore.AsyncNetworkStream:
        """See `httpcore.AsyncNetworkStream.start_tls`."""
        return await self._stream.start_tls(ssl_context, server_hostname, timeout)  # type: ignore[arg-type]

    def get_extra_info(self, info: str) -> object:
        """See `httpcore.AsyncNetworkStream.get_extra_info`."""
        return self._stream.get_extra_info(info)

    def _opened(self, stream_id: int) -> None:
        if stream_id > self._last_accepted and stream_id > self._highest_opened:
            self._injected += _reset(stream_id)  # it was on its way when GOAWAY came
        self._highest_opened = max(self._highest_opened, stream_id)

    def _inspect(self, data: bytes) -> bytes:
        """*data* as httpcore is to see it."""
        if self._held:
            data, self._held = self._held + data, b""
        shown: list[bytes] = []
        at = start = 0
        while at < len(data):
            if self._passing:
                step = min(self._passing, len(data) - at)
                self._passing -= step
                at += step
                continue
            whole = at + _HEADER
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3] if len(data) >= whole else -1
            if kind in (_RST_STREAM, _SETTINGS, _GOAWAY) and length <= _MAX_FRAME:
                whole += length
            if len(data) < whole:
                self._held = data[at:]
                break
            if kind == _SETTINGS and not data[at + 4] & _ACK:
                self._settings(data[at + _HEADER : whole])
            if kind == _RST_STREAM and int.from_bytes(data[at + _HEADER : whole], "big") == REFUSED_STREAM:
                self._refused += 1
            if kind == _GOAWAY and length <= _MAX_FRAME:
                shown += data[start:at], self._goaway(data[at + _HEADER : whole])
                start = whole
            self._passing = at + _HEADER + length - whole
            at = whole
        return b"".join([*shown, data[start:at]]) if shown or at < len(data) else data

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):  # section 6.5.1: identifier 16 bits, value 32
            identifier = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if identifier == _MAX_CONCURRENT_STREAMS and value:  # httpcore takes no notice of zero either
                self._limit = min(MOST_STREAMS, value)
        self.settled = True
        self._on_change()

    def _goaway(self, payload: bytes) -> bytes:
        """The resets of the streams that the server will not process."""
        last = int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF
        # A server may announce the end first and the exact stream later; the number never grows (section 6.8).
        first_refused = last + (1 if last % 2 == 0 else 2)
        already_reset = self._last_accepted
        self._last_accepted = min(self._last_accepted, last)
        self.draining = True
        self._on_change()
        return b"".join(
            _reset(stream_id)
            for stream_id in range(first_refused, self._highest_opened + 1, 2)
            if stream_id <= already_reset
        )


def _reset(stream_id: int) -> bytes:
    """RST_STREAM with REFUSED_STREAM (section 6.4)."""
    return (
        (4).to_bytes(3, "big")
        + bytes([_RST_STREAM, 0])
        + stream_id.to_bytes(4, "big")
        + REFUSED_STREAM.to_bytes(4, "big")
    )
