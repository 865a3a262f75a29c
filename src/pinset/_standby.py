"""
The connections of the pool that can take a request now, and the way out for those that can not.

Rules of this module:

1. A connection is found by its origin, the one used last first; and by how long it has been idle, the longest first.
2. A connection takes a request only if it is neither expired, ended by the peer, nor refused by the policy in force at
   that moment. Else it is retired: requests in flight finish, and then it is closed.
3. Nothing is closed here: what has to be is put on `Standby.doomed`, once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from pinset._books import Connection, Origin


class Standby:
    """
    The connections that can take a request.

    Args:
        max_idle: The most idle ones, or None for any number.
        keepalive_expiry: Seconds after which an idle connection is not used again, or None for never.
        clock: Seconds that only grow.
        settle: Called with a connection that takes no more requests, for those that still wait for it.

    Attributes:
        idle: Those that carry no request, idle for longest first.
        doomed: Those to close.
    """

    def __init__(
        self,
        *,
        max_idle: int | None,
        keepalive_expiry: float | None,
        clock: Callable[[], float],
        settle: Callable[[Connection], None],
    ) -> None:
        self._max_idle = float("inf") if max_idle is None else max_idle
        self._keepalive_expiry = keepalive_expiry
        self._clock = clock
        self._settle = settle
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.doomed: list[Connection] = []

    def take(self, origin: Origin, now: float) -> Connection | None:
        """
        A connection of *origin* for one request more, or None.
        """
        while origin.shared:
            connection = next(iter(origin.shared))
            if not connection.is_fit(now):
                self.retire(connection)
            elif connection.has_room:
                return self.occupy(connection)
            else:
                del origin.shared[connection]  # the server allows fewer streams than before
        while origin.idle:
            connection = origin.idle[-1]
            if connection.is_fit(now):
                return self.occupy(connection)
            self.retire(connection)
        return None

    def occupy(self, connection: Connection) -> Connection:
        """
        One request more on *connection*.
        """
        if not connection.in_use:
            self._unidle(connection)
        connection.in_use += 1
        if not connection.has_room:
            connection.origin.shared.pop(connection, None)
        return connection

    def add(self, connection: Connection) -> None:
        """
        *connection* can take a request.
        """
        frames, origin = connection.protocol.frames, connection.origin
        if frames is not None:
            origin.shared[connection] = None
        if not connection.in_use:
            if self._keepalive_expiry is not None:
                connection.expires_at = self._clock() + self._keepalive_expiry
            self.idle[connection] = None
            if frames is None:
                origin.idle.append(connection)

    def retire_expired(self, now: float) -> None:
        """
        Retire what has been idle for too long.
        """
        # The one that has been idle for longest expires first.
        while self.idle:
            oldest = next(iter(self.idle))
            if oldest.expires_at is None or now <= oldest.expires_at:
                break
            self.retire(oldest)

    def retire_surplus(self) -> None:
        """
        Retire idle connections, the longest idle ones first, until no more are left than there may be.
        """
        while len(self.idle) > self._max_idle:
            self.retire(next(iter(self.idle)))

    def retire(self, connection: Connection) -> None:
        """
        Give no more requests to *connection*, and close it once it carries none.
        """
        self.withdraw(connection)
        if not connection.in_use:
            self.doom(connection)

    def withdraw(self, connection: Connection) -> None:
        """
        Give no more requests to *connection*.
        """
        connection.retired = True
        connection.origin.shared.pop(connection, None)
        self._settle(connection)
        if connection in self.idle:
            self._unidle(connection)

    def doom(self, connection: Connection) -> None:
        """
        Have *connection* closed, whatever it carries.
        """
        if not connection.closed:
            connection.closed = True
            self.doomed.append(connection)

    def _unidle(self, connection: Connection) -> None:
        del self.idle[connection]
        if connection.protocol.frames is None:
            idle = connection.origin.idle
            # The one used last is taken, the one idle for longest is retired: it is at either end.
            if idle[-1] is connection:
                idle.pop()
            else:
                idle.remove(connection)
