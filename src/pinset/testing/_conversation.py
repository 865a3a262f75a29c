"""
One connection through the interceptor: the impostor's handshake with the client, what the client makes of it, and then
the bytes of both sides.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from pinset._errors import HostError
from pinset._hosts import canonical_host
from pinset._pins import Pin
from pinset.operate.interception import Contact, Reaction
from pinset.testing._greeting import Target
from pinset.testing._impostors import Impostors, read_refusal
from pinset.testing._service import cut

_CHUNK = 64 * 1024
_HANDSHAKE = b"\x16"  # the content type of a ClientHello (RFC 8446 section 5.1)
_ALPN = ("h2", "http/1.1")
_TURN = 0.2


class Upstream:
    """
    The road to the genuine servers.

    Args:
        trust: A client's context, which from now on is ours alone.
        connect_to: Where every server is, if not where its name says.
    """

    def __init__(self, trust: ssl.SSLContext, connect_to: tuple[str, int] | None) -> None:
        self._trust = trust
        self._connect_to = connect_to
        self._lock = threading.Lock()

    def connect(self, target: Target, *, patience: float) -> socket.socket:
        """
        A connection to the genuine server.

        Raises:
            OSError: There is none.
        """
        return socket.create_connection(self._connect_to or (target.host, target.port), timeout=patience)

    def start_tls(self, plain: socket.socket, name: str, alpn: Sequence[str]) -> ssl.SSLSocket:
        """
        Shake hands with the server *name* over *plain*, which is closed if that fails.

        Raises:
            OSError: It failed.
        """
        # A new connection copies the list of its context, so the list must not change just then.
        with self._lock:
            self._trust.set_alpn_protocols(list(alpn))
            tls = self._trust.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)
        try:
            tls.do_handshake()
        except OSError:
            tls.close()
            raise
        return tls


class Conversation:
    """
    What passes between a client, the impostor and the genuine server.

    Args:
        impostors: Makes the impostor's certificate.
        upstream: The road to the genuine server; None for none.
        now: The present instant, aware.
        is_control: Whether this is to show that the client knows the authority.
        note: Is given the host and what the client sent.

    Attributes:
        inside: The connection with the client.
        client_certificate: What the client showed, DER.
        is_decided: What the client does is known, or it asked for nothing.
        is_closed: It has hung up.
    """

    def __init__(
        self,
        impostors: Impostors,
        upstream: Upstream | None,
        *,
        now: datetime,
        is_control: bool,
        note: Callable[[str, bytes], None],
    ) -> None:
        self._impostors = impostors
        self._upstream = upstream
        self._now = now
        self._is_control = is_control
        self._note = note
        self._decided: tuple[Reaction, str] | None = None
        self._outside: socket.socket | None = None
        self._unreached = ""
        self._patience = 0.0
        self._shown: Pin | None = None
        self._sent = 0
        self.inside: socket.socket | None = None
        self.client_certificate: bytes | None = None
        self.is_decided = self.is_closed = False

    def contact(self) -> Contact | None:
        """
        What the client did; None as long as that is not decided.
        """
        if self._decided is None:
            return None
        reaction, detail = self._decided
        return Contact(
            at=self._now,
            host=self._host,
            port=self._target.port,
            reaction=reaction,
            detail=detail,
            sent=self._sent,
            shown=self._shown,
            is_control=self._is_control,
        )

    def begin(self, client: socket.socket, target: Target) -> None:
        """
        Show the impostor to *client*, and wait for what it does.
        """
        self.inside, self._target, self._host = client, target, target.host
        self._patience = client.gettimeout() or 0.0
        try:
            first = client.recv(1, socket.MSG_PEEK)
        except OSError as error:
            self._decide(*read_refusal(error, stage="before"))
            return
        if not first:
            self._decide(Reaction.UNFINISHED, "it hung up before the handshake")
        elif first == _HANDSHAKE:
            self._shake_hands(client)
        else:
            self._reach(None, ())
            self._take(client.recv(_CHUNK), Reaction.CLEARTEXT, "it sent data without TLS")

    def _shake_hands(self, client: socket.socket) -> None:
        greeter = self._impostors.greeter(self._impersonate)
        try:
            self.inside = tls = greeter.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            tls.do_handshake()
        except OSError as error:
            self._decide(*read_refusal(error, stage="in" if self._shown else "before"))
            return
        self.client_certificate = tls.getpeercert(binary_form=True)
        self._fit(tls.selected_alpn_protocol())
        try:
            self._await_data(tls)
        except OSError as error:
            if not self.is_decided:
                self._decide(*read_refusal(error, stage="after"))

    def _impersonate(self, name: str | None) -> ssl.SSLContext:
        """The context for a ClientHello with the server name *name*."""
        with contextlib.suppress(HostError):
            self._host = canonical_host(name or self._target.host)
        names = tuple(dict.fromkeys([name or self._target.host, self._target.host]))
        self._reach(self._host, _ALPN)
        self._shown = self._impostors.pin(names)
        # What the genuine server does not speak, the impostor does not offer, or there would be two ends that do not fit.
        offered = _ALPN if self._protocol == "h2" else _ALPN[1:]
        return self._impostors.context(names, offered)

    @property
    def _protocol(self) -> str | None:
        return self._outside.selected_alpn_protocol() if isinstance(self._outside, ssl.SSLSocket) else None

    def _reach(self, name: str | None, alpn: tuple[str, ...]) -> None:
        """Connect to the genuine server, with TLS for *name*; if that fails, the client is deceived all the same."""
        if self._upstream is None:
            return
        try:
            plain = self._upstream.connect(self._target, patience=self._patience)
            self._outside = plain if name is None else self._upstream.start_tls(plain, name, alpn)
        except OSError as error:
            self._unreached = str(error)

    def _fit(self, chosen: str | None) -> None:
        """Speak with the genuine server what the client has chosen."""
        if self._outside is not None and chosen != self._protocol and (chosen or self._protocol != "http/1.1"):
            self._outside.close()
            self._outside = None
            self._reach(self._host, (chosen,) if chosen else ())

    def _await_data(self, tls: ssl.SSLSocket) -> None:
        """
        The handshake is done: does the client send something, or does it hang up?

        Some protocols let the server speak first, so what it says is passed on meanwhile. Who stays has accepted.
        """
        end = time.monotonic() + self._patience
        while not self.is_decided and time.monotonic() < end:
            for source in _readable(self._ends()):
                if source is self._outside:
                    self._pass_back()
                elif (data := _receive(tls)) is not None:
                    self._judge(data)
        if not self.is_decided:
            self._decide(Reaction.ACCEPTED, f"it kept the connection for {self._patience:g} s and sent nothing")

    def _judge(self, data: bytes) -> None:
        if data:
            self._take(data, Reaction.ACCEPTED, "it sent data")
        else:
            self._decide(Reaction.LEFT, "it hung up after the handshake, before it sent anything")

    def relay(self, is_closing: Callable[[], bool]) -> None:
        """
        Pass on what both sides say, if the client is there still, until one has no more to say or *is_closing*.
        """
        while self._decided and self._decided[0].is_read and self._outside is not None and not is_closing():
            for source in _readable(self._ends()):
                if source is self._outside:
                    self._pass_back()
                elif (data := _receive(source)) is not None:
                    if not data:
                        return
                    self._pass_on(data)

    def cut(self) -> None:
        """
        End it, from another thread.
        """
        for end in self._ends():
            cut(end)

    def close(self) -> None:
        """
        Hang up on both sides.
        """
        ends, self.inside, self._outside = self._ends(), None, None
        for end in ends:
            with contextlib.suppress(OSError):
                end.close()
        self.is_decided = self.is_closed = True

    def _ends(self) -> list[socket.socket]:
        return [end for end in (self.inside, self._outside) if end is not None]

    def _take(self, data: bytes, reaction: Reaction, detail: str) -> None:
        """The first that the client sent to the impostor."""
        if self._outside is None and self._upstream is not None:
            detail += f"; {self._target.host}:{self._target.port} was not reached: {self._unreached}"
        self._count(data)
        self._decide(reaction, detail)
        if self._outside is not None:
            self._outside.sendall(data)

    def _decide(self, reaction: Reaction, detail: str) -> None:
        self._decided = reaction, detail
        self.is_decided = True

    def _pass_on(self, data: bytes) -> None:
        self._count(data)
        if self._outside is not None:
            self._outside.sendall(data)

    def _pass_back(self) -> None:
        """What the genuine server has said goes to the client; when it has hung up, it is no longer there."""
        assert self._outside is not None
        assert self.inside is not None
        try:
            data = _receive(self._outside)
        except OSError:
            data = b""
        if data:
            self.inside.sendall(data)
        elif data is not None:
            self._outside.close()
            self._outside = None

    def _count(self, data: bytes) -> None:
        self._sent += len(data)
        self._note(self._host, data)


def _readable(ends: list[socket.socket]) -> list[socket.socket]:
    """Those of *ends* with something to read, after a while none. TLS may hold bytes that the system knows nothing of."""
    waiting: list[socket.socket] = [end for end in ends if isinstance(end, ssl.SSLSocket) and end.pending()]
    return waiting or select.select(ends, [], [], _TURN)[0]


def _receive(source: socket.socket) -> bytes | None:
    """What has come; nothing at the end; None where it was no data: a session ticket, or a part of a record."""
    patience = source.gettimeout()
    source.settimeout(0)
    try:
        return source.recv(_CHUNK)
    except (ssl.SSLWantReadError, BlockingIOError):
        return None
    finally:
        source.settimeout(patience)
