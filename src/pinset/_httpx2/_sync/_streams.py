# Made from pinset/_sync/_streams.py by tools/twins.py; change that one.
"""
Streams for threads: a socket that never blocks, waited for with ``poll``, and TLS in memory above it.

Rules of this module:

1. TLS is ours, as on an event loop (`pinset._tls_layer`): what OpenSSL wants to send lies in our hands until the pins
   have had their say, so a client certificate does not leave for a server that is refused. A blocking TLS socket cannot
   do that.
2. After an upgrade (WebSocket) one thread reads while another writes. OpenSSL's object is used by one at a time, and
   records leave in the order in which they were encrypted. Nobody holds OpenSSL's lock while waiting for the network.
3. A deadline covers a whole read, write or handshake, however many records it takes.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time

import httpcore2

from pinset._httpx2._streams import raise_as_connect_error
from pinset._tls_layer import READ_SIZE, WRITE_SIZE, OriginContext, TLSLayer, is_ended, is_readable


class PinsetStream(httpcore2.NetworkStream):
    """
    A connection as httpcore2 wants it, that can also be asked whether it may carry another request.
    """

    def accepts(self) -> bool:
        """
        Whether this connection may carry another request, under the policy in force now.
        """
        raise NotImplementedError

    def receive(self, max_bytes: int, deadline: float | None) -> bytes:
        """
        Receive something; empty at the end.

        Raises:
            TimeoutError: Nothing arrived before the monotonic time *deadline*.
            OSError: The connection was lost, or TLS failed.
        """
        raise NotImplementedError

    def send(self, data: bytes | memoryview, deadline: float | None) -> None:
        """
        Send all of *data*.

        Raises:
            TimeoutError: The peer did not take it before the monotonic time *deadline*.
            OSError: The connection was lost, or TLS failed.
        """
        raise NotImplementedError

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore2.NetworkStream.read`. Empty at the end, with or without a close_notify, as in httpcore2."""
        try:
            return self.receive(max_bytes, _deadline(timeout))
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(f"nothing arrived in {timeout} seconds") from error
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore2.NetworkStream.write`."""
        view, deadline = memoryview(buffer), _deadline(timeout)
        try:
            for start in range(0, len(view), WRITE_SIZE):
                self.send(view[start : start + WRITE_SIZE], deadline)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(f"the peer did not take the data in {timeout} seconds") from error
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def start_tls(
        self,
        ssl_context: ssl.SSLContext | OriginContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> PinsetStream:
        """
        Shake hands over this stream, and close it if that fails.

        Args:
            ssl_context: An `OriginContext` for a leg that is pinned, a plain context for one that is not.
            server_hostname: The name to verify.
            timeout: Seconds, or None to wait for ever.

        Raises:
            httpcore2.ConnectError: The connection or TLS failed.
            httpcore2.ConnectTimeout: *timeout* seconds have passed.
            RefusedError: The pins refuse the chain. Nothing of our flight has left.
        """
        try:
            stream = TLSStream(self, ssl_context, server_hostname)
            stream.do_handshake(_deadline(timeout))
        except BaseException as error:  # noqa: BLE001 - an interrupt leaks the socket too
            self.close()
            raise_as_connect_error(error)
        return stream


class RawStream(PinsetStream):
    """
    A connection before TLS: carries bytes as they are, and can start TLS.

    Args:
        raw: A connected socket, which the stream takes over.
    """

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw

    def receive(self, max_bytes: int, deadline: float | None) -> bytes:
        """See `PinsetStream.receive`."""
        while True:
            try:
                return self._raw.recv(max_bytes)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)

    def send(self, data: bytes | memoryview, deadline: float | None) -> None:
        """See `PinsetStream.send`."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._raw.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def close(self) -> None:
        """See `httpcore2.NetworkStream.close`. Whoever waits in another thread gets an error."""
        try:
            self._raw.shutdown(socket.SHUT_RDWR)  # closing alone would not wake it
        except OSError:
            pass  # the peer was first
        finally:
            self._raw.close()

    def accepts(self) -> bool:
        """See `PinsetStream.accepts`."""
        return self._raw.fileno() >= 0

    def get_extra_info(self, info: str) -> object:
        """See `httpcore2.NetworkStream.get_extra_info`; in addition ``is_ended``."""
        match info:
            case "client_addr":
                return self._raw.getsockname()
            case "server_addr":
                return self._raw.getpeername()
            case "socket":
                return self._raw
            case "is_readable":
                return is_readable(self._raw.fileno())
            case "is_ended":
                return is_ended(self._raw.fileno())
            case _:
                return None

    def _wait(self, event: int, deadline: float | None) -> None:
        rest = None if deadline is None else max(0.0, deadline - time.monotonic())
        poll = select.poll()
        poll.register(self._raw, event)
        if not poll.poll(None if rest is None else rest * 1000):
            raise TimeoutError


class TLSStream(PinsetStream):
    """
    A connection inside TLS.

    Args:
        below: The stream that carries the records: raw, or TLS itself.
        ssl_context: An `OriginContext` for a leg that is pinned, a plain context for one that is not.
        server_hostname: The name to verify.
    """

    def __init__(
        self, below: PinsetStream, ssl_context: ssl.SSLContext | OriginContext, server_hostname: str | None
    ) -> None:
        self._below = below
        self._layer = TLSLayer(ssl.MemoryBIO(), ssl_context, server_hostname)
        self._using_tls = threading.Lock()
        self._sending = threading.Lock()

    def do_handshake(self, deadline: float | None) -> None:
        """Shake hands; see `PinsetStream.start_tls`."""
        while True:
            try:
                self._layer.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                self._take_in(self._below.receive(READ_SIZE, deadline))
            else:
                return

    def receive(self, max_bytes: int, deadline: float | None) -> bytes:
        """See `PinsetStream.receive`."""
        while True:
            with self._using_tls:
                data = self._layer.read(max_bytes)
            # A key update wants an answer. If somebody is sending, he takes it along.
            if self._layer.outgoing.pending and data is None and self._sending.acquire(blocking=False):
                try:
                    self._flush(deadline)
                finally:
                    self._sending.release()
            if data is not None:
                return data
            arrived = self._below.receive(READ_SIZE, deadline)
            with self._using_tls:
                self._take_in(arrived)

    def send(self, data: bytes | memoryview, deadline: float | None) -> None:
        """See `PinsetStream.send`."""
        with self._sending:
            with self._using_tls:
                self._layer.ssl_object.write(data)
            self._flush(deadline)

    def close(self) -> None:
        """See `httpcore2.NetworkStream.close`."""
        self._below.close()

    def accepts(self) -> bool:
        """See `PinsetStream.accepts`."""
        return self._layer.accepts() and self._below.accepts()

    def get_extra_info(self, info: str) -> object:
        """See `httpcore2.NetworkStream.get_extra_info`; in addition ``pinset`` for the verdict, and ``is_ended``."""
        match info:
            case "ssl_object":
                return self._layer.ssl_object
            case "pinset":
                return self._layer.verdict
            case "is_readable":
                return self._is_readable()
            case _:
                return self._below.get_extra_info(info)

    def _is_readable(self) -> bool:
        with self._using_tls:
            return self._layer.is_readable() or bool(self._below.get_extra_info("is_readable"))

    def _flush(self, deadline: float | None) -> None:
        while self._layer.outgoing.pending:
            with self._using_tls:
                records = self._layer.outgoing.read()
            self._below.send(records, deadline)

    def _take_in(self, records: bytes) -> None:
        if records:
            self._layer.incoming.write(records)
        else:
            self._layer.incoming.write_eof()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
