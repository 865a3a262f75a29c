"""
One side of a TLS connection between two memory BIOs, for whoever carries the records: an event loop or a thread.

Rules of this module:

1. TLS is ours: a memory BIO on either side of a `PinnedSSLObject`, so that what OpenSSL wants to send lies in our hands
   until the object had its say.
2. Nothing here waits. `TLSLayer` turns bytes into records and back; who carries them is the business of the streams.
3. A connection is judged where a request begins, by `TLSLayer.accepts`, and not while one is under way: what a replaced
   policy refuses is retired, not cut.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from pinset._enforcement import Enforcement
from pinset._errors import ContextError
from pinset._pinner import Stamp
from pinset._tls import PinnedSSLObject
from pinset._verdict import Verdict

READ_SIZE = 64 * 1024
WRITE_SIZE = 256 * 1024
"""A write is cut into pieces of this size, so that a body of a gigabyte is not encrypted into memory at once."""
_ENDED = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR  # the first is Linux's


@dataclass(frozen=True, slots=True)
class OriginContext:
    """
    What a stream is given in place of an ``ssl.SSLContext`` for a leg that is pinned.

    It tells `start_tls` apart which leg it is on: a proxy's own leg comes with a plain context, unless that has pins of
    its own. And it keeps the context as it was made: httpcore sets the ALPN list before every connection, which on a shared context
    mixes up HTTP/1.1 and HTTP/2 clients.
    """

    context: ssl.SSLContext
    enforcement: Enforcement

    def set_alpn_protocols(self, protocols: Iterable[str]) -> None:
        """Ignored: the list was set when the context was made."""


class TLSLayer:
    """
    One side of a TLS connection, between two memory BIOs.

    Args:
        incoming: Where the records of the peer arrive.
        ssl_context: An `OriginContext` for a leg that is pinned, a plain context for one that is not.
        server_hostname: The name to verify.

    Attributes:
        ssl_object: OpenSSL's part.
        incoming: As given.
        outgoing: Records for the peer. After the handshake our last flight waits here for the first write: in HTTP the
            client speaks first, and one segment with Finished and request is cheaper than two.
    """

    __slots__ = ("_ahead", "_enforcement", "_failure", "_stamp", "incoming", "outgoing", "ssl_object")

    def __init__(
        self, incoming: ssl.MemoryBIO, ssl_context: ssl.SSLContext | OriginContext, server_hostname: str | None
    ) -> None:
        self._ahead = b""
        self._failure: tuple[object, ...] = ()
        self._stamp: Stamp | None = None
        self._enforcement: Enforcement | None = None
        if isinstance(ssl_context, OriginContext):
            self._enforcement = ssl_context.enforcement
            ssl_context = ssl_context.context
        self.incoming = incoming
        self.outgoing = ssl.MemoryBIO()
        self.ssl_object = ssl_context.wrap_bio(incoming, self.outgoing, server_hostname=server_hostname)
        if self._enforcement is not None:
            _pinned(self.ssl_object).enforce(self._enforcement)

    def do_handshake(self) -> None:
        """
        Go one step of the handshake; when it is done, the layer carries its stamp.

        Raises:
            ssl.SSLWantReadError: The peer has to answer first.
            ssl.SSLError: As OpenSSL finds it.
            RefusedError: The pins refuse the chain.
        """
        self.ssl_object.do_handshake()
        if self._enforcement is not None:
            self._stamp = _pinned(self.ssl_object).pinset_stamp

    def read(self, max_bytes: int) -> bytes | None:
        """
        Decrypt what has arrived, at most *max_bytes* of it.

        Returns:
            None when the peer has to say more first, and nothing at the end: with or without a close_notify.

        Raises:
            ssl.SSLError: As OpenSSL finds it.
        """
        if self._ahead:
            data, self._ahead = self._ahead[:max_bytes], self._ahead[max_bytes:]
            return data
        if self._failure:
            raise ssl.SSLError(*self._failure)
        # OpenSSL asks for more by an exception, which costs several times as much as these questions.
        if not (self.incoming.pending or self.incoming.eof or self.ssl_object.pending()):
            return None
        try:
            data = self.ssl_object.read(max_bytes)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            # OpenSSL does not say it again, and the error itself would keep the frames that it passed.
            self._failure = error.args
            raise
        if self.incoming.pending and len(data) < max_bytes:
            return self._with_more(data, max_bytes)
        return data

    def _with_more(self, data: bytes, max_bytes: int) -> bytes:
        # A record holds 16 KiB at most, and the way up through HTTP costs far more than decrypting the next one.
        pieces, room = [data], max_bytes - len(data)
        try:
            while room and self.incoming.pending:
                pieces.append(self.ssl_object.read(room))
                room -= len(pieces[-1])
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # the last two come again
        except ssl.SSLError as error:
            self._failure = error.args
        return b"".join(pieces)

    def is_readable(self) -> bool:
        """
        Whether data or the end is waiting in what has arrived.
        """
        if self._ahead:
            return True
        # A session ticket is no data, and no reason to give up an idle connection. Only reading tells.
        try:
            data = self.read(READ_SIZE)
        except ssl.SSLError:
            return True
        self._ahead = data or b""
        return data is not None

    def accepts(self) -> bool:
        """
        Whether the policy in force now lets this connection carry another request; renews the stamp.
        """
        if self._enforcement is None:
            return True
        assert self._stamp is not None  # a stream is handed out after its handshake
        self._stamp = self._enforcement.pinner.renew(self._stamp)
        return self._enforcement.accepts(self._stamp.verdict)

    @property
    def verdict(self) -> Verdict | None:
        """
        What was last said about this connection; None on a leg without pins.
        """
        return None if self._stamp is None else self._stamp.verdict


def _pinned(tls: ssl.SSLObject) -> PinnedSSLObject:
    if not isinstance(tls, PinnedSSLObject):
        raise ContextError(
            "the context was changed after the client was made and no longer yields pinset's TLS objects"
        )
    return tls


def is_readable(descriptor: int) -> bool:
    """
    Whether a read would return at once: the peer has closed, or says what nobody asked for.
    """
    return descriptor < 0 or bool(_poll(descriptor, select.POLLIN))


def is_ended(descriptor: int) -> bool:
    """
    Whether the peer has closed its side or the connection is lost, even with unread data before that.
    """
    return descriptor < 0 or bool(_poll(descriptor, _ENDED) & (_ENDED | select.POLLNVAL))


def _poll(descriptor: int, events: int) -> int:
    poll = select.poll()
    poll.register(descriptor, events)
    answers = poll.poll(0)
    return answers[0][1] if answers else 0
