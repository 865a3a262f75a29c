"""
Who gets which connection: a state machine drives the book-keeping of the pool, and a naive model says what may happen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import httpcore
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pinset._assignment import Assignment
from pinset._books import Connection, Flight, Waiter
from pinset._connect import Protocol
from pinset._errors import PinMismatchError

PLAIN = (b"https", b"plain.test", 443)  # speaks HTTP/1.1 and is never asked for more
OTHER = (b"https", b"other.test", 443)
MODERN = (b"https", b"modern.test", 443)  # may choose HTTP/2
KEYS = [PLAIN, OTHER, MODERN]


@dataclass(eq=False)
class Peer:
    """The far end of a connection, in place of the network: what httpcore and the stream would report."""

    readable: bool = False
    available: bool = True
    accepted: bool = True
    draining: bool = False
    max_streams: int = 1
    busy: int = 0
    number: int = field(default_factory=itertools.count().__next__)

    def accepts(self) -> bool:
        return self.accepted

    def is_idle(self) -> bool:
        return self.available and not self.busy

    def is_available(self) -> bool:
        return self.available

    def get_extra_info(self, info: str) -> object:
        assert info in ("is_readable", "is_ended")
        return self.readable

    def protocol(self, *, http2: bool) -> Protocol:
        return Protocol(http=self, stream=self, frames=self if http2 else None)  # type: ignore[arg-type]


@dataclass(eq=False)
class Asked:
    """A request, as the model sees it."""

    key: tuple[bytes, bytes, int]
    number: int
    waiter: Waiter | None = None
    connection: Connection | None = None


@dataclass
class Book:
    """An assignment and what it asked for."""

    max_connections: int | None = None
    max_idle: int | None = None
    keepalive_expiry: float | None = None
    now: float = 0.0
    started: list[Flight] = field(default_factory=list)
    cancelled: list[Flight] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.assignment = Assignment(
            max_connections=self.max_connections,
            max_idle=self.max_idle,
            keepalive_expiry=self.keepalive_expiry,
            shares=lambda key: key == MODERN,
            start=self.started.append,
            cancel=self.cancelled.append,
            clock=lambda: self.now,
        )

    def land(self, flight: Flight, peer: Peer | None = None, *, http2: bool = False) -> Peer:
        peer = peer or Peer()
        self.started.remove(flight)
        self.assignment.landed(flight, peer.protocol(http2=http2))
        return peer

    def bury(self) -> None:
        while (connection := self.assignment.next_doomed()) is not None:
            self.assignment.closed(connection)


class AssignmentMachine(RuleBasedStateMachine):
    """Requests come, wait, are served, fail and leave; connections land, age, end and are refused."""

    @initialize(
        max_connections=st.sampled_from([1, 2, 3, None]),
        max_idle=st.sampled_from([0, 1, 2, None]),
        keepalive_expiry=st.sampled_from([5.0, None]),
    )
    def begin(self, max_connections, max_idle, keepalive_expiry) -> None:
        self.book = Book(max_connections, max_idle, keepalive_expiry)
        self.assignment = self.book.assignment
        self.limit = float("inf") if max_connections is None else max_connections
        self.asked: list[Asked] = []
        self.count = 0
        self.served: dict[tuple[bytes, bytes, int], int] = {}
        self.is_closed = False

    # What the world does.

    @precondition(lambda self: not self.is_closed)
    @rule(key=st.sampled_from(KEYS))
    def request(self, key) -> None:
        self.count += 1
        asked = Asked(key, self.count)
        self.asked.append(asked)
        connection = self.assignment.take(key)
        if connection is not None:
            self.got(asked, connection)
        else:
            asked.waiter = self.assignment.enqueue(key, {"timeout": {}})
        self.look()

    @precondition(lambda self: self.book.started)
    @rule(data=st.data(), http2=st.booleans(), max_streams=st.integers(1, 3))
    def land(self, data, http2, max_streams) -> None:
        flight = data.draw(st.sampled_from(self.book.started))
        http2 = http2 and flight.origin.key == MODERN
        self.finish_eviction(flight)
        self.book.land(flight, Peer(max_streams=1 if http2 else max_streams), http2=http2)
        self.look()

    @precondition(lambda self: self.book.started)
    @rule(data=st.data(), kind=st.sampled_from(["refused", "unreachable", "late", "cancelled"]))
    def fail(self, data, kind) -> None:
        flight = data.draw(st.sampled_from(self.book.started))
        error = {
            "refused": PinMismatchError("refused", host="plain.test"),
            "unreachable": httpcore.ConnectError("unreachable"),
            "late": httpcore.ConnectTimeout("late"),
            "cancelled": KeyboardInterrupt(),
        }[kind]
        joined = list(flight.joined)
        self.finish_eviction(flight)
        self.book.started.remove(flight)
        self.assignment.failed(flight, error)
        self.look()
        for waiter in joined:
            if waiter.error is None:
                assert kind == "late", "who waits for a failed connection is told"
                assert waiter is not flight.owner

    @precondition(lambda self: self.holding())
    @rule(data=st.data(), reusable=st.booleans())
    def finish(self, data, reusable) -> None:
        asked = data.draw(st.sampled_from(self.holding()))
        self.give_back(asked, reusable=reusable)
        self.look()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def give_up(self, data) -> None:
        asked = data.draw(st.sampled_from(self.waiting()))
        self.asked.remove(asked)
        flight = self.assignment.leave(asked.waiter)
        assert flight is None or flight in self.book.cancelled
        self.look()

    @precondition(lambda self: self.assignment.has_doomed)
    @rule()
    def bury(self) -> None:
        self.book.bury()
        self.look()

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def time_passes(self, seconds) -> None:
        self.book.now += seconds

    @precondition(lambda self: self.assignment.connections)
    @rule(data=st.data(), change=st.sampled_from(["ends", "refused", "unavailable"]))
    def connection_changes(self, data, change) -> None:
        connection = data.draw(st.sampled_from(self.connections()))
        peer = connection.protocol.http
        if change == "ends":
            peer.readable = True
        elif change == "refused":
            peer.accepted = False
        elif connection.in_use:
            peer.available = False

    @precondition(lambda self: any(c.protocol.frames for c in self.assignment.connections))
    @rule(data=st.data(), max_streams=st.integers(1, 4), draining=st.booleans())
    def server_speaks(self, data, max_streams, draining) -> None:
        """SETTINGS or GOAWAY on an HTTP/2 connection."""
        several = [c for c in self.connections() if c.protocol.frames]
        connection = data.draw(st.sampled_from(several))
        peer = connection.protocol.http
        peer.max_streams, peer.draining = max_streams, draining or peer.draining
        self.assignment.changed(self.flights[connection])
        self.look()

    @precondition(lambda self: not self.is_closed and self.count > 8)
    @rule()
    def close(self) -> None:
        self.is_closed = True
        self.assignment.close(lambda: httpcore.ConnectError("closed"))
        self.look()
        assert not self.waiting()

    # What the model concludes.

    def connections(self) -> list[Connection]:
        """In an order of their own, so that Hypothesis can repeat what it found."""
        return sorted(self.assignment.connections, key=lambda connection: connection.protocol.http.number)

    def holding(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.connection is not None]

    def waiting(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.connection is None]

    @property
    def flights(self) -> dict[Connection, Flight]:
        if not hasattr(self, "_flights"):
            self._flights: dict[Connection, Flight] = {}
        return self._flights

    def finish_eviction(self, flight: Flight) -> None:
        if flight.instead_of is not None:
            assert flight.instead_of.in_use == 0, "a connection in use was evicted"

    def got(self, asked: Asked, connection: Connection) -> None:
        peer = connection.protocol.http
        assert peer.accepted, "handed out against the policy in force"
        assert peer.available
        assert not peer.draining
        assert not connection.closed
        assert not connection.retired
        if connection.protocol.frames is None or connection.in_use == 1:
            assert not peer.readable, "handed out after its end"
        asked.connection = connection
        peer.busy += 1

    def give_back(self, asked: Asked, *, reusable: bool) -> None:
        self.asked.remove(asked)
        peer = asked.connection.protocol.http
        peer.busy -= 1
        peer.available = peer.available and reusable
        self.assignment.give_back(asked.connection)

    def look(self) -> None:
        """Who was served or refused by the last step, in the order in which they asked."""
        for asked in self.waiting():
            if asked.waiter.connection is not None:
                if asked.waiter.connection.in_use == 1 and asked.waiter.connection.expires_at is None:
                    asked.connection = asked.waiter.connection  # fresh, or never idle
                    asked.connection.protocol.http.busy += 1
                else:
                    self.got(asked, asked.waiter.connection)
            elif asked.waiter.error is not None:
                self.asked.remove(asked)
        for connection in self.assignment.connections:
            if connection.flight is not None:
                self.flights[connection] = connection.flight
            elif connection not in self.flights and connection.protocol.frames is not None:
                self.flights[connection] = Flight(connection.origin, None, 0.0, connection=connection)  # type: ignore[arg-type]

    @invariant()
    def never_too_many(self) -> None:
        if hasattr(self, "book"):
            assert len(self.assignment.connections) + len(self.book.started) <= self.limit

    @invariant()
    def never_more_requests_than_streams(self) -> None:
        if not hasattr(self, "book"):
            return
        for connection in self.assignment.connections:
            holders = sum(asked.connection is connection for asked in self.holding())
            assert connection.in_use == holders
            if connection.protocol.frames is None:
                assert holders <= 1

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        if not hasattr(self, "book"):
            return
        queued = [asked for asked in self.waiting() if asked.waiter.flight is None]
        for asked in self.waiting():
            if asked.waiter.flight is not None:
                flight = asked.waiter.flight
                assert flight in self.book.started or flight.connection in self.assignment.connections
        if queued:
            busy = len(self.assignment.connections) + len(self.book.started)
            assert busy == self.limit, "somebody waits although there is a free slot"
            idle = [c for c in self.assignment.connections if not c.in_use and not c.closed]
            assert not idle, "somebody waits although a connection is idle"

    def teardown(self) -> None:
        """Everything ends; then every slot is there again."""
        if not hasattr(self, "book"):
            return
        for _ in range(1_000):
            for flight in list(self.book.started):
                self.book.land(flight)
            self.look()
            for asked in self.holding():
                self.give_back(asked, reusable=True)
            self.book.bury()
            self.look()
            if not self.asked and not self.book.started:
                break
        assert not self.asked
        if self.is_closed:
            assert not self.assignment.connections
            return
        wanted = 5 if self.limit == float("inf") else int(self.limit)
        waiters = [self.assignment.enqueue(OTHER, {}) for _ in range(wanted) if not self.assignment.take(OTHER)]
        self.book.bury()
        assert all(waiter.flight or waiter.connection for waiter in waiters), "a slot was lost"


TestAssignmentMachine = AssignmentMachine.TestCase
TestAssignmentMachine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_error_that_cannot_be_copied():
    """A trace function may raise one: whoever waits gets the same, and the slot is free again."""

    class DemandingError(Exception):
        def __init__(self, first, second):
            super().__init__("only one of them")

    book = Book(max_connections=1)
    waiters = [book.assignment.enqueue(MODERN, {}) for _ in range(2)]
    [flight] = book.started
    error = DemandingError(1, 2)
    book.assignment.failed(flight, error)
    assert [waiter.error for waiter in waiters] == [error, error]
    assert book.assignment.enqueue(PLAIN, {}).flight is not None
