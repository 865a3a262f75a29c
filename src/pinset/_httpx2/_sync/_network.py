# Made from pinset/_sync/_network.py by tools/twins.py; change that one.
"""
The network backend for threads: httpcore2's public seam (`httpcore2.NetworkBackend`).

Addresses are tried one after another, as ``socket.create_connection`` does; the deadline is one for all of them, where
there it begins anew with each.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import httpcore2

from pinset._httpx2._streams import raise_as_connect_error
from pinset._httpx2._sync._streams import PinsetStream, RawStream

if TYPE_CHECKING:
    from httpcore2 import SOCKET_OPTION


class PinnedBackend(httpcore2.NetworkBackend):
    """
    A backend whose streams shake hands through pinset.
    """

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> PinsetStream:
        """See `httpcore2.NetworkBackend.connect_tcp`."""
        try:
            return adopt(open_socket(host, port, timeout, local_address), socket_options)
        except (OSError, UnicodeError) as error:
            raise_as_connect_error(error)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> PinsetStream:
        """See `httpcore2.NetworkBackend.connect_unix_socket`."""
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            raw.settimeout(timeout)
            raw.connect(path)
            return adopt(raw, socket_options)
        except BaseException as error:  # noqa: BLE001 - an interrupt leaks the socket too
            raw.close()
            raise_as_connect_error(error)

    def sleep(self, seconds: float) -> None:
        """See `httpcore2.NetworkBackend.sleep`."""
        time.sleep(seconds)


def open_socket(host: str, port: int, timeout: float | None, local_address: str | None) -> socket.socket:
    """
    A socket connected to *host*.

    Raises:
        TimeoutError: *timeout* seconds have passed. Looking up the name counts, but cannot be cut short.
        OSError: No address can be reached.
        UnicodeError: The host has no IDNA form.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        raw = socket.socket(family, kind, protocol)
        try:
            if local_address is not None:
                raw.bind((local_address, 0))
            # Zero would mean not to wait at all, and be another error.
            raw.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            raw.connect(address)
        except BaseException as error:
            raw.close()
            if not isinstance(error, OSError) or isinstance(error, TimeoutError):
                raise
            failure = error
        else:
            return raw
    raise failure or OSError(f"the name {host!r} has no address")


def adopt(raw: socket.socket, socket_options: Iterable[SOCKET_OPTION] | None) -> RawStream:
    """
    A stream over a connected socket, with the options set.

    Raises:
        OSError: The system does not know an option.
    """
    try:
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            raw.setsockopt(*option)  # pyright: ignore[reportArgumentType, reportCallIssue]  # four forms, which the type does not tell apart
        return RawStream(raw)
    except BaseException:
        raw.close()
        raise
