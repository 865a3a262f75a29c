# Made from pinset/_assignment.py by tools/twins.py; change that one.
"""
Who gets which connection: the book-keeping of the pool, in constant time per request, without I/O.

Rules of this module:

1. A request is served by a connection of its origin that stands by (`pinset._sync._standby`); by one in the making that may be
   shared; by a new one; in this order. Else it waits.
2. Who waits longest is served first. While anybody waits there is no idle connection and no free slot.
3. A connection holds one slot from before it is opened until after it is closed.
4. Nothing awaits. What has to be closed is named by `next_doomed`; the pool closes it and says `closed`.
5. Each public method is atomic, so threads may call them as tasks do.
"""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable

import httpcore

from pinset._sync._books import Connection, Flight, Origin, Waiter
from pinset._sync._connect import Extensions, Key, Protocol
from pinset._errors import RefusedError
from pinset._sync._standby import Standby
from pinset._sync._tasks import Exclusive, atomic

# Origins whose pins have just refused a chain. New connections to them are made one at a time and shared, refusal
# included, so that a burst of requests does not become a burst of handshakes again and again.
_MOST_SUSPECTS = 1_000


class Assignment(Exclusive):
    """
    The book-keeping of a pool.

    Args:
        max_connections: The most connections at once, or None for any number.
        max_idle: The most idle ones, or None for any number.
        keepalive_expiry: Seconds after which an idle connection is not used again, or None for never.
        shares: Whether connections to an origin may turn out to be HTTP/2, which requests share.
        start: Begins a flight.
        cancel: Ends a flight that nobody waits for any more.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        *,
        max_connections: int | None,
        max_idle: int | None,
        keepalive_expiry: float | None,
        shares: Callable[[Key], bool],
        start: Callable[[Flight], None],
        cancel: Callable[[Flight], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._max_connections = float("inf") if max_connections is None else max_connections
        self._shares = shares
        self._start = start
        self._cancel = cancel
        self._clock = clock
        self._origins: dict[Key, Origin] = {}
        self._slots = 0
        self._standby = Standby(max_idle=max_idle, keepalive_expiry=keepalive_expiry, clock=clock, settle=self._settle)
        self._waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._suspects: OrderedDict[Key, None] = OrderedDict()
        self.connections: set[Connection] = set()
        self.flights: set[Flight] = set()

    def __repr__(self) -> str:
        idle, busy = len(self._standby.idle), len(self.connections) - len(self._standby.idle)
        return (
            f"Requests: {len(self._waiting)} queued | Connections: {busy} active, {idle} idle,"
            f" {len(self.flights)} connecting"
        )

    @atomic
    def take(self, key: Key) -> Connection | None:
        """
        A connection of the origin for a request that begins now, or None.
        """
        connection = self._take(key)
        if self._waiting:  # a connection that was found unfit may have had requests waiting for it
            self._dispatch()
        return connection

    @atomic
    def enqueue(self, key: Key, extensions: Extensions) -> Waiter:
        """
        Serve a request for which `take` had nothing, now or later.
        """
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = Origin(key)
        waiter = Waiter(origin, extensions, self._clock())
        self._waiting[waiter] = origin.waiting[waiter] = None
        self._dispatch()
        return waiter

    @atomic
    def leave(self, waiter: Waiter) -> Flight | None:
        """
        A request gives up waiting.

        Returns:
            The flight that was cancelled because nobody waits for it any more, if there is one.
        """
        self._unqueue(waiter)
        flight, waiter.flight = waiter.flight, None
        if flight is None:
            self._forget(waiter.origin)
            return None
        flight.joined.pop(waiter, None)
        if flight.joined or flight.connection is not None:
            for other in flight.joined:
                other.notify()  # it may fall to one of them to go on with it; see `Waiter.errand`
            return None
        flight.unwanted = True
        self._cancel(flight)
        return flight

    @atomic
    def give_back(self, connection: Connection, *, at_end: bool = True) -> None:
        """
        A request has left *connection*, in whatever state.

        Args:
            connection: Where it was.
            at_end: Whether the response was read to its end, or none is to be expected.
        """
        connection.in_use -= 1
        if not at_end and connection.protocol.frames is not None:
            connection.abandoned += 1
        if connection.closed:
            return
        http, frames, origin = connection.protocol.http, connection.protocol.frames, connection.origin
        useful = http.is_idle() if frames is None else http.is_available() and not frames.draining
        if connection.abandoned and not connection.in_use:
            useful = False  # the server goes on serving streams that nobody reads; the end of the connection stops it
        # One that the policy refuses would not be taken again, and would lie there until it is too old.
        if connection.retired or not useful or not connection.protocol.stream.accepts():
            self._standby.retire(connection)
        else:
            self._standby.add(connection)
            flight = connection.flight
            if flight is not None and flight.joined:
                if connection.is_fit(self._clock()):
                    self._assign(next(iter(flight.joined)), self._standby.occupy(connection))
                else:
                    self._standby.retire(connection)
        if self._waiting:
            self._dispatch(origin)
        self._standby.retire_surplus()

    @atomic
    def stepped(self, flight: Flight) -> None:
        """
        *flight* begins another step, with a timeout of its own.
        """
        flight.step_since = self._clock()

    @atomic
    def landed(self, flight: Flight, protocol: Protocol) -> None:
        """
        *flight* has made a connection.
        """
        origin = flight.origin
        connection = Connection(origin, protocol, in_use=1, retired=flight.unwanted)
        self.connections.add(connection)
        self._suspects.pop(origin.key, None)
        first = flight.owner if flight.owner in flight.joined else next(iter(flight.joined), None)
        if first is not None:
            del flight.joined[first]
        if protocol.frames is None:
            origin.speaks_http1 = self._shares(origin.key)
            self._end(flight)
        else:
            connection.flight, flight.connection = flight, connection
            flight.step_since = self._clock()
            if not flight.joined:
                self._settle(connection)
        if first is not None:
            self._assign(first, connection)
        else:
            self.give_back(connection)
        self._dispatch()

    @atomic
    def changed(self, flight: Flight) -> None:
        """
        The HTTP/2 connection of *flight* has learned how many streams it may open, or that it may open no more.
        """
        connection = flight.connection
        if connection is None or connection.closed:
            return
        self._settle(connection)
        if connection.has_room and not connection.retired:
            connection.origin.shared[connection] = None
        self._dispatch(connection.origin)

    @atomic
    def failed(self, flight: Flight, error: BaseException) -> None:
        """
        *flight* has ended without a connection.
        """
        origin = flight.origin
        if isinstance(error, RefusedError):
            self._suspects[origin.key] = None
            while len(self._suspects) > _MOST_SUSPECTS:
                self._suspects.popitem(last=False)
        # A timeout is its owner's alone: the others may have more patience.
        alone = isinstance(error, httpcore.ConnectTimeout)
        victims = [waiter for waiter in flight.joined if waiter is flight.owner or not alone]
        for waiter in victims:
            del flight.joined[waiter]
        self._end(flight)
        for number, waiter in enumerate(victims):
            waiter.flight, waiter.error = None, error if number == 0 else _twin(error)
            waiter.notify()
        self._free_slot(origin)

    @property
    def has_doomed(self) -> bool:
        """
        Whether anything is to be closed; see `next_doomed`.
        """
        return bool(self._standby.doomed)

    @atomic
    def next_doomed(self) -> Connection | None:
        """
        A connection that its caller has to close, and then say so by `closed`.
        """
        doomed = self._standby.doomed
        return doomed.pop() if doomed else None

    @atomic
    def closed(self, connection: Connection) -> None:
        """
        *connection* was closed.
        """
        self.connections.discard(connection)
        self._free_slot(connection.origin)

    @atomic
    def close(self, error: Callable[[], Exception]) -> None:
        """
        Refuse whoever waits, end every flight, and doom every connection.
        """
        for waiter in [*self._waiting, *(waiter for flight in self.flights for waiter in flight.joined)]:
            self._unqueue(waiter)
            waiter.flight, waiter.error = None, error()
            waiter.notify()
        for flight in self.flights:
            flight.joined.clear()
            if flight.connection is None:
                flight.unwanted = True
                self._cancel(flight)
        for connection in list(self.connections):
            self._standby.withdraw(connection)
            self._standby.doom(connection)

    # What the above is made of.

    def _take(self, key: Key) -> Connection | None:
        now = self._clock()
        self._standby.retire_expired(now)
        origin = self._origins.get(key)
        return None if origin is None else self._standby.take(origin, now)

    def _dispatch(self, origin: Origin | None = None) -> None:
        """Serve whoever waits, oldest first; and those of *origin*, which has gained something of its own."""
        while self._waiting and self._serve(next(iter(self._waiting))):
            pass
        while origin is not None and origin.waiting and (connection := self._take(origin.key)):
            self._assign(next(iter(origin.waiting)), connection)

    def _serve(self, waiter: Waiter) -> bool:
        origin = waiter.origin
        if connection := self._take(origin.key):
            self._assign(waiter, connection)
        elif origin.flight is not None:
            self._join(waiter, origin.flight)
        elif self._slots < self._max_connections:
            self._slots += 1
            self._take_off(waiter, None)
        elif self._standby.idle:
            evicted = next(iter(self._standby.idle))
            self._standby.withdraw(evicted)
            evicted.closed = True  # by the flight that takes its slot
            self.connections.discard(evicted)
            evicted.origin.slots -= 1
            self._forget(evicted.origin)
            self._take_off(waiter, evicted)
        else:
            return False
        return True

    def _take_off(self, waiter: Waiter, instead_of: Connection | None) -> None:
        origin = waiter.origin
        flight = Flight(origin, waiter, self._clock(), instead_of)
        origin.slots += 1
        self.flights.add(flight)
        self._start(flight)  # before anybody is told: a thread looks at once whether there is something to do
        self._join(waiter, flight)
        if origin.key in self._suspects or (self._shares(origin.key) and not origin.speaks_http1):
            origin.flight = flight
            for other in tuple(origin.waiting):
                self._join(other, flight)

    def _join(self, waiter: Waiter, flight: Flight) -> None:
        self._unqueue(waiter)
        flight.joined[waiter] = None
        waiter.flight, waiter.since = flight, self._clock()
        waiter.notify()

    def _assign(self, waiter: Waiter, connection: Connection) -> None:
        self._unqueue(waiter)
        if waiter.flight is not None:
            waiter.flight.joined.pop(waiter, None)
            waiter.flight = None
        waiter.connection = connection
        waiter.notify()

    def _unqueue(self, waiter: Waiter) -> None:
        self._waiting.pop(waiter, None)
        waiter.origin.waiting.pop(waiter, None)

    def _settle(self, connection: Connection) -> None:
        flight, connection.flight = connection.flight, None
        if flight is not None:
            self._end(flight)

    def _end(self, flight: Flight) -> None:
        """Nobody waits for *flight* any more; those who did wait at the head of the queue."""
        waiters = list(flight.joined)
        flight.joined.clear()
        self.flights.discard(flight)
        if flight.origin.flight is flight:
            flight.origin.flight = None
        for waiter in reversed(waiters):
            waiter.flight, waiter.since = None, self._clock()
            for queue in (self._waiting, waiter.origin.waiting):
                queue[waiter] = None
                queue.move_to_end(waiter, last=False)
            waiter.notify()

    def _free_slot(self, origin: Origin) -> None:
        self._slots -= 1
        origin.slots -= 1
        self._dispatch()
        self._forget(origin)

    def _forget(self, origin: Origin) -> None:
        if not (origin.slots or origin.waiting or origin.flight):
            self._origins.pop(origin.key, None)


def _twin(error: BaseException) -> BaseException:
    """The same error for another request: httpx writes the request into it."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - raised by a trace function, of a class that cannot be copied
        return error
    twin.__cause__ = error.__cause__
    return twin
