"""
TLS sessions, with the chain that earned them.

A resumed handshake verifies nothing: no chain, no name, no date. OpenSSL offers any session to any host, and a server
proves only that it knows the session's secret. So:

1. A session is kept only after a full handshake that passed every check, together with the chain of that handshake. The
   policy in force is asked about that chain whenever the session is used.
2. It belongs to one context, host and port, and is offered to no other.
3. It is used for an hour at most, whatever the server allows, and never past the end of a certificate of its chain. A
   server that changed its certificate but kept its ticket keys is recognised after that hour.
4. A TLS 1.3 ticket is used once (RFC 8446 appendix C.4), as long as the server sends new ones.
5. The store is bounded, and so is what a leaking interpreter may lose: see `SESSIONS_LEAK`.
"""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

SESSIONS_LEAK = sys.version_info < (3, 12, 8) or (3, 13) <= sys.version_info < (3, 13, 1)
"""Reading ``session`` copies it and loses 6.5 kB for good (python/cpython gh-116810)."""

# On such an interpreter a session is read once per full handshake and used again and again; no more are read than this,
# and none of a server that has refused so many in a row.
_MOST_LEAKS = 2_000
_MOST_REFUSALS = 3

SessionKey: TypeAlias = tuple[ssl.SSLContext, str, int]
"""The context, host and port that a session belongs to."""


@dataclass(frozen=True, slots=True)
class Session:
    """
    A session that may be resumed.

    Attributes:
        tls: The session itself.
        chain: The verified chain of the full handshake that earned it, leaf first, DER.
        earned: When that was, on the clock of the store.
        not_after: The end of the certificate of the chain that ends first.
        once: It is a TLS 1.3 ticket, and there will be others.
    """

    tls: ssl.SSLSession
    chain: tuple[bytes, ...]
    earned: float
    not_after: datetime
    once: bool = False


class SessionStore:
    """
    The sessions of one transport; threads may share it.

    Args:
        max_age: Seconds after the full handshake for which a session is used.
        max_sessions: How many are kept; those used least recently go first.
        clock: Seconds that only grow.
    """

    def __init__(
        self, *, max_age: float = 3600.0, max_sessions: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_age = max_age
        self._max_sessions = max_sessions
        self._clock = clock
        self._sessions: OrderedDict[SessionKey, Session] = OrderedDict()
        self._refusals: OrderedDict[SessionKey, int] = OrderedDict()
        self._lock = threading.Lock()
        self._reads = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def now(self) -> float:
        """
        The present moment on the clock of the store, for `Session.earned`.
        """
        return self._clock()

    def take(self, key: SessionKey) -> Session | None:
        """
        The session to offer, if there is one that is not too old. One that is used once leaves the store, so that no
        other thread offers it too.
        """
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            # The server's own limit counts too: past it the server refuses, and the offer is wasted.
            if self._clock() - session.earned >= min(self._max_age, session.tls.timeout or self._max_age):
                del self._sessions[key]
                return None
            if session.once:
                del self._sessions[key]
            else:
                self._sessions.move_to_end(key)
            return session

    def wants(self, key: SessionKey) -> bool:
        """
        Whether a session for *key* should be read from a connection that has just shaken hands in full.
        """
        if not SESSIONS_LEAK:
            return True
        return self._reads < _MOST_LEAKS and self._refusals.get(key, 0) < _MOST_REFUSALS

    def keep(self, key: SessionKey, session: Session) -> None:
        """
        Put *session* in the place of the one that is there.
        """
        with self._lock:
            self._reads += 1
            self._sessions[key] = session
            self._sessions.move_to_end(key)
            while len(self._sessions) > self._max_sessions:
                self._sessions.popitem(last=False)

    def drop(self, key: SessionKey, session: Session) -> None:
        """
        Do not offer *session* again.
        """
        with self._lock:
            if self._sessions.get(key) is session:
                del self._sessions[key]

    def resumed(self, key: SessionKey) -> None:
        """
        The server has taken a session for *key*.
        """
        self._refusals.pop(key, None)

    def refused(self, key: SessionKey, session: Session) -> None:
        """
        The server did not take *session*.
        """
        self.drop(key, session)
        with self._lock:
            self._refusals[key] = self._refusals.get(key, 0) + 1
            while len(self._refusals) > self._max_sessions:
                self._refusals.popitem(last=False)
