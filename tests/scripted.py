"""
Servers that do what a script says, connection by connection: stall, break off, refuse streams, say GOAWAY.

Each connection has a thread of its own, so a script is read from top to bottom. A script that raises fails the test when
the server is stopped. A client that hangs up ends the script of its connection without complaint.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass

import anyio
import h2.config
import h2.connection
import h2.events
import h2.settings
import hyperframe.frame

PATIENCE = 20.0
REFUSED_STREAM = 0x7
_TICK = 0.01


class HungUp(Exception):  # noqa: N818 - it is the end of a script and no error
    """The client has closed the connection."""


async def wait_for(condition, what):
    """Wait until *condition* is true: threads need a moment."""
    with anyio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a thread sets no event of ours
            await anyio.sleep(_TICK)
        return
    raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")


class Scripted:
    """
    A server on a free port of 127.0.0.1 that runs *script* for each connection, while its ``with`` block lasts.

    Attributes:
        peers: The connections so far.
        released: Ends every `Peer.stall`, those to come included.
    """

    def __init__(self, script):
        self._script = script
        self._threads = []
        self._errors = []
        self._stopping = False
        self.peers = []
        self.released = threading.Event()

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, kind, *_):
        self._stopping = True
        self.released.set()
        socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE).close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.raw.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        if kind is None and self._errors:
            raise self._errors[0]

    @property
    def connections(self):
        """How many there have been."""
        return len(self.peers)

    @property
    def open(self):
        """How many clients have not hung up."""
        return sum(not peer.ended for peer in self.peers)

    @property
    def stalls(self):
        """How many connections have reached their stall."""
        return sum(peer.stalled for peer in self.peers)

    def url(self, path="/", host="localhost"):
        """The ``https`` URL of *path*."""
        return f"https://{host}:{self.port}{path}"

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            raw, _ = self._listener.accept()
            if self._stopping:
                raw.close()
                return
            raw.settimeout(PATIENCE)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(self, raw, len(self.peers))
            self.peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer):
        try:
            self._script(peer)
        except (HungUp, ssl.SSLError, ConnectionError):
            pass
        except OSError as error:
            if not self._stopping:
                self._errors.append(error)
        except Exception as error:  # noqa: BLE001 - raised when the server is stopped
            self._errors.append(error)
        finally:
            peer.ended = True
            peer.close()


class Peer:
    """
    One connection of a `Scripted` server.

    Attributes:
        number: The how-manieth connection it is, from 0.
        stalled: It has reached its stall.
        ended: Its script has ended.
        received: What the client sent so far through TLS, or as it is without TLS.
    """

    def __init__(self, server, raw, number):
        self._server = server
        self.raw = raw
        self.stream = raw
        self.number = number
        self.stalled = False
        self.ended = False
        self.received = b""

    def wrap(self, context):
        """Shake hands."""
        self.stream = self.raw = context.wrap_socket(self.raw, server_side=True)

    def send(self, data):
        """Send all of *data*."""
        self.stream.sendall(data)

    def receive(self):
        """What comes next; the script ends when nothing does."""
        data = self.stream.recv(65536)
        if not data:
            raise HungUp
        self.received += data
        return data

    def head(self):
        """The head of the next HTTP/1.1 request, or CONNECT."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        return data.partition(b"\r\n\r\n")[0]

    def stall(self):
        """Say nothing until the server is released, or the client hangs up, which ends the script."""
        self.stalled = True
        poll = select.poll()
        poll.register(self.raw.fileno(), select.POLLRDHUP)
        end = time.monotonic() + 2 * PATIENCE
        while not self._server.released.is_set():
            if poll.poll(1000 * _TICK):
                raise HungUp
            if time.monotonic() > end:
                raise TimeoutError("the client did not hang up")

    def close(self, *, reset=False):
        """Close the connection, in good order or with RST."""
        with contextlib.suppress(OSError):
            if reset:
                self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.raw.close()


def answer(body=b"hello", head=b"HTTP/1.1 200 OK"):
    """An HTTP/1.1 response."""
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def serve_http1(context):
    """A script that answers every HTTP/1.1 request."""

    def script(peer):
        peer.wrap(context)
        while True:
            peer.head()
            peer.send(answer())

    return script


def serve_http2(context):
    """A script that answers every HTTP/2 request."""

    def script(peer):
        peer.wrap(context)
        http = HTTP2(peer)
        while True:
            http.respond(http.request().stream)

    return script


@dataclass(frozen=True)
class Request:
    """A request as it came on an HTTP/2 stream."""

    stream: int
    method: str
    path: str
    body: bytes


class HTTP2:
    """
    The server's side of an HTTP/2 connection on *peer*, after its TLS handshake.

    Args:
        peer: The connection.
        settings: What the server announces.
    """

    def __init__(self, peer, settings=None):
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._peer = peer
        self._h2 = h2.connection.H2Connection(config)
        if settings:
            self._h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self._heads = {}
        self._bodies = {}
        self._whole = []
        self.reset = []
        self._h2.initiate_connection()
        self._flush()

    def request(self, *, whole=True):
        """The next request; with ``whole=False`` as soon as its head is there."""
        while True:
            if not whole and self._heads:
                stream, (method, path) = self._heads.popitem()
                return Request(stream, method, path, b"")
            if self._whole:
                return self._whole.pop(0)
            self._step()

    def respond(self, stream, body=b"hello"):
        """Answer *stream* with 200."""
        self.begin(stream)
        self._h2.send_data(stream, body, end_stream=True)
        self._flush()

    def begin(self, stream):
        """Send the head of a 200 on *stream*."""
        self._h2.send_headers(stream, [(":status", "200")])
        self._flush()

    def data(self, stream, body, *, end=False):
        """Send a part of a body."""
        self._h2.send_data(stream, body, end_stream=end)
        self._flush()

    def refuse(self, stream, code=REFUSED_STREAM):
        """RST_STREAM; the stream was not processed."""
        self._h2.reset_stream(stream, code)
        self._flush()

    def goaway(self, last, *, code=0, sizes=()):
        """GOAWAY, which h2 would take for the end of everything; cut after each of *sizes* bytes."""
        frame = hyperframe.frame.GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=b"later")
        data = frame.serialize()
        self.send_in_parts(data, sizes)

    def send_in_parts(self, data, sizes):
        """Send *data* in TLS records of its own, cut at *sizes*."""
        at = 0
        for size in (*sizes, len(data)):
            if data[at:size]:
                self._peer.send(data[at:size])
            at = size

    def finish(self):
        """Read until the client hangs up."""
        while True:
            self._step()

    def _step(self):
        for event in self._h2.receive_data(self._peer.receive()):
            self._note(event)
        self._flush()

    def _note(self, event):
        if isinstance(event, h2.events.RequestReceived):
            headers = dict(event.headers)
            self._heads[event.stream_id] = headers[":method"], headers[":path"]
            self._bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self._bodies[event.stream_id] += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            method, path = self._heads.pop(event.stream_id, ("", ""))
            self._whole.append(Request(event.stream_id, method, path, self._bodies.pop(event.stream_id, b"")))
        elif isinstance(event, h2.events.StreamReset):
            self.reset.append(event.stream_id)

    def _flush(self):
        if data := self._h2.data_to_send():
            self._peer.send(data)
