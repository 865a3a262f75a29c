# Made from pinset/_books.py by tools/twins.py; change that one.
"""
What the books of the pool are kept on: origins, connections, requests that wait, and connections in the making.

They hold facts and answer questions about themselves. Who gets what is decided in `pinset._httpx2._assignment`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import httpcore2

from pinset._httpx2._connect import Extensions, Key, Protocol
from pinset._tasks import Task


@dataclass(slots=True, eq=False, repr=False)
class Origin:
    """
    What is known of an origin while anybody uses it.

    Attributes:
        idle: Its HTTP/1.1 connections, the one used last at the right end.
        shared: Its HTTP/2 connections with a free stream.
        waiting: The requests for it that have nothing to wait for but a slot.
        flight: A connection in the making that every request may wait for.
        slots: How many connections it has, those in the making included.
        speaks_http1: The server chose HTTP/1.1 over HTTP/2, so its connections are not shared.
    """

    key: Key
    idle: deque[Connection] = field(default_factory=deque)
    shared: dict[Connection, None] = field(default_factory=dict)
    waiting: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    flight: Flight | None = None
    slots: int = 0
    speaks_http1: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Connection:
    """
    A connection of the pool.

    Attributes:
        flight: The flight whose requests still wait for the server's SETTINGS; HTTP/2 only.
        in_use: The requests on it.
        abandoned: Streams whose request has left before their end; HTTP/2 only. Nobody resets them, so they still count.
        expires_at: When it is too old to be used again.
        retired: It takes no more requests.
        closed: It was closed, or somebody is closing it.
    """

    origin: Origin
    protocol: Protocol
    flight: Flight | None = None
    in_use: int = 0
    abandoned: int = 0
    expires_at: float | None = None
    retired: bool = False
    closed: bool = False

    @property
    def has_room(self) -> bool:
        """
        Whether another request would stay within the streams that the server allows.
        """
        frames = self.protocol.frames
        return self.in_use + self.abandoned < (1 if frames is None else frames.max_streams)

    def is_fit(self, now: float) -> bool:
        """
        Whether it may carry a request that begins now.
        """
        protocol = self.protocol
        frames = protocol.frames
        if not protocol.stream.accepts() or (
            frames is not None and (frames.draining or not protocol.http.is_available())
        ):
            return False
        if self.in_use:
            return True
        if self.expires_at is not None and now > self.expires_at:
            return False
        # Nothing can come on an idle HTTP/1.1 connection but its end. HTTP/2 has frames of its own, as PING.
        return not protocol.stream.get_extra_info("is_readable" if frames is None else "is_ended")


@dataclass(slots=True, eq=False, repr=False)
class Waiter:
    """
    A request without a connection.

    Attributes:
        since: When it began to wait for what it is waiting for now.
        flight: What it waits for; None for a slot.
        connection: What it got. It holds a place on it.
        error: Or why it got none.
        notify: Called when any of this has changed.
    """

    origin: Origin
    extensions: Extensions
    since: float
    flight: Flight | None = None
    connection: Connection | None = None
    error: BaseException | None = None
    notify: Callable[[], None] = lambda: None

    def watch(self, notify: Callable[[], None]) -> None:
        """
        Have *notify* called from now on.
        """
        self.notify = notify

    def errand(self) -> Task | None:
        """
        The making of the connection, if that falls to this request: where no loop runs it, its owner does, or whoever
        is left.
        """
        flight = self.flight
        if flight is None or (flight.owner is not self and flight.owner in flight.joined):
            return None
        return flight.task

    def patience(self) -> tuple[float | None, type[httpcore2.TimeoutException]]:
        """
        When it has waited long enough, and the error that says so.
        """
        timeouts = self.extensions.get("timeout", {})
        flight = self.flight
        if flight is None:
            limit = timeouts.get("pool")
            return None if limit is None else self.since + limit, httpcore2.PoolTimeout
        limit = timeouts.get("connect")
        if limit is None or (flight.owner is self and flight.connection is None):
            return None, httpcore2.ConnectTimeout  # the steps of its own flight are bounded one by one
        return max(self.since, flight.step_since) + limit, httpcore2.ConnectTimeout


@dataclass(slots=True, eq=False, repr=False)
class Flight:
    """
    A connection in the making.

    Attributes:
        owner: The request whose timeouts bound its steps.
        joined: The requests that wait for it, the owner included, oldest first.
        instead_of: An idle connection that has to be closed first; its slot is used.
        step_since: When its present step began.
        connection: What came of it, while requests wait for the server's SETTINGS; HTTP/2 only.
        task: What makes it.
        unwanted: Nobody waits for it; what comes of it is closed.
    """

    origin: Origin
    owner: Waiter
    step_since: float
    instead_of: Connection | None = None
    joined: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    connection: Connection | None = None
    task: Task | None = None
    unwanted: bool = False

    def check(self) -> None:
        """
        Raises:
            httpcore2.ConnectError: Nobody waits for it any more.
        """
        if self.unwanted:
            raise httpcore2.ConnectError("nobody waits for the connection any more")
