"""
HTTP/2 for the throw-away server: requests in, responses out, in the words of HTTP/1.1.

A responder is written once, for HTTP/1.1; here its head becomes pseudo-header fields (RFC 9113 section 8.3) and back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

Responder = Callable[[bytes], bytes]
"""From the head of a request to a whole response."""

# Connection-specific fields have no place in HTTP/2 (RFC 9113 section 8.2.2).
_OF_THE_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection"}


@dataclass(slots=True)
class _Request:
    head: bytes
    body: bytes = b""


def serve_http2(
    receive: Callable[[], bytes], send: Callable[[bytes], None], answer: Callable[[bytes, bytes], bytes]
) -> None:
    """
    Serve one connection until the client hangs up or breaks the protocol.

    Args:
        receive: Returns the next bytes, none at the end.
        send: Sends bytes.
        answer: Makes the response from head and body of a request.
    """
    connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    connection.initiate_connection()
    send(connection.data_to_send())
    requests: dict[int, _Request] = {}
    waiting: dict[int, bytes] = {}
    while data := receive():
        try:
            for event in connection.receive_data(data):
                _take(connection, event, requests, waiting, answer)
        except ProtocolError:
            send(connection.data_to_send())
            return
        _send_bodies(connection, waiting)
        send(connection.data_to_send())


def _take(
    connection: H2Connection,
    event: Event,
    requests: dict[int, _Request],
    waiting: dict[int, bytes],
    answer: Callable[[bytes, bytes], bytes],
) -> None:
    if isinstance(event, RequestReceived):
        requests[event.stream_id] = _Request(_head(event.headers))
    elif isinstance(event, DataReceived):
        requests[event.stream_id].body += event.data
        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, StreamEnded):
        request = requests.pop(event.stream_id)
        head, _, body = answer(request.head, request.body).partition(b"\r\n\r\n")
        connection.send_headers(event.stream_id, _fields(head))
        waiting[event.stream_id] = body
    elif isinstance(event, StreamReset):
        requests.pop(event.stream_id, None)
        waiting.pop(event.stream_id, None)


def _send_bodies(connection: H2Connection, waiting: dict[int, bytes]) -> None:
    """Send of each body what flow control lets through (RFC 9113 section 5.2)."""
    for stream, body in list(waiting.items()):
        left = body
        while left and (room := min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size)):
            connection.send_data(stream, left[:room])
            left = left[room:]
        waiting[stream] = left
        if not left:
            connection.end_stream(stream)
            del waiting[stream]


def _head(fields: list[tuple[bytes, bytes]]) -> bytes:
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    lines = [pseudo.get(b":method", b"GET") + b" " + pseudo.get(b":path", b"/") + b" HTTP/2"]
    lines += [b"host: " + pseudo[b":authority"]] if b":authority" in pseudo else []
    lines += [name + b": " + value for name, value in fields if not name.startswith(b":")]
    return b"\r\n".join(lines)


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    status, *lines = head.split(b"\r\n")
    pairs = [line.split(b":", 1) for line in lines]
    return [
        (b":status", status.split(b" ")[1]),
        *((name.strip().lower(), value.strip()) for name, value in pairs if name.lower() not in _OF_THE_CONNECTION),
    ]
