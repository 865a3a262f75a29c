"""
An intercepting proxy: what an attacker with a trusted CA, or a company's inspection box, does.

It answers ``CONNECT`` and SOCKS5, shakes hands with the client under a certificate it makes on the spot for whatever host
is asked for, and passes the decrypted bytes on. A client that trusts its CA and has no pins notices nothing.

Rules of this module:

1. What a client did is decided by what it did, not by how it explains itself: `pinset.operate.interception` has the words.
2. The impostor is shown whether or not the genuine server can be reached; so a test needs no network.
3. The key of the authority stays in memory. What was sent is kept only where that is asked for.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from pinset._hosts import canonical_host
from pinset.operate.interception import Contact, Reaction, reaction_of
from pinset.testing._authority import Authority
from pinset.testing._conversation import Conversation, Upstream
from pinset.testing._greeting import greet
from pinset.testing._impostors import Impostors
from pinset.testing._service import PATIENCE, Service

CA_PATH = "/ca.pem"
"""Where the proxy itself serves the certificate of its authority, for a phone to load."""


class Interceptor(Service):
    """
    A CONNECT and SOCKS5 proxy that impersonates every host, while its ``with`` block lasts.

    Args:
        authority: Signs the impostors. Make the client under test trust it. By default a new one.
        upstream: What the interceptor itself trusts when it passes on to the real server, a context of its own; None passes
            nothing on.
        connect_to: Where the real server of every host is, if not where its name says.
        clients: Ask for certificates of this authority, and see who shows one.
        keep: Whether `intercepted` keeps what was sent, or only its size is known.
        address: Where to listen; port 0 takes a free one.
        allow_remote: Whether that may be reachable from other machines. Whoever reaches it can use it as a proxy.
        on_contact: Is told each contact once it is decided, in a thread of the interceptor.
        patience: Seconds to wait for a client to say something.

    Attributes:
        authority: The authority.
        intercepted: Plain text that clients sent through, by host.
        client_certificates: Certificates that clients showed, DER.

    Raises:
        InputError: The address is none, or not one of the loopback interface and that was not allowed.
    """

    def __init__(
        self,
        authority: Authority | None = None,
        *,
        upstream: ssl.SSLContext | None = None,
        connect_to: tuple[str, int] | None = None,
        clients: Authority | None = None,
        keep: bool = True,
        address: tuple[str, int] = ("127.0.0.1", 0),
        allow_remote: bool = False,
        on_contact: Callable[[Contact], None] = lambda _: None,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(address, allow_remote=allow_remote)
        self.authority = authority or Authority("Interceptor")
        self._impostors = Impostors(self.authority, clients)
        self._upstream = None if upstream is None else Upstream(upstream, connect_to)
        self._keep = keep
        self._on_contact = on_contact
        self._patience = patience
        self._is_control = False
        self._conversations: list[Conversation] = []
        self.intercepted: dict[str, bytes] = {}
        self.client_certificates: list[bytes] = []

    @property
    def url(self) -> str:
        """
        What a client takes as ``proxy``.
        """
        return f"http://{self._netloc}"

    @property
    def socks_url(self) -> str:
        """
        The same for clients that speak SOCKS5; names are resolved by the proxy.
        """
        return f"socks5h://{self._netloc}"

    @property
    def _netloc(self) -> str:
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """
        What clients did, a `pinset.operate.interception.Contact` for each connection of which that is decided.
        """
        with self._lock:
            found = [conversation.contact() for conversation in self._conversations]
        return tuple(contact for contact in found if contact is not None)

    @property
    def refused(self) -> dict[str, int]:
        """
        How often a client left at the impostor's certificate, by host, for whatever reason.
        """
        left = {Reaction.LEFT, Reaction.UNTRUSTED}
        hosts = [contact.host for contact in self.contacts if contact.reaction in left]
        return {host: hosts.count(host) for host in hosts}

    def settle(self, *, until_closed: bool = False, within: float | None = None) -> tuple[Contact, ...]:
        """
        Wait until it is decided what the clients do that have connected.

        Args:
            until_closed: Wait until they have hung up, too, so that all they sent is counted.
            within: Seconds to wait at most; by default as long as the interceptor has patience.

        Returns:
            The contacts.
        """
        end = time.monotonic() + (2 * self._patience if within is None else within)
        while time.monotonic() < end:
            with self._lock:
                if all(each.is_closed if until_closed else each.is_decided for each in self._conversations):
                    break
            time.sleep(0.005)
        return self.contacts

    @contextmanager
    def control(self) -> Iterator[None]:
        """
        While the block lasts, a client without pins is to show that it knows the authority, by accepting the impostor.

        Its contacts count for nothing else.
        """
        self._is_control = True
        try:
            yield
            self.settle()
        finally:
            self._is_control = False

    def reaction(self, host: str, *, knows_authority: bool = False) -> Reaction | None:
        """
        What clients did with impostors of *host* so far, all things considered; None when nobody came.

        Args:
            host: Its name.
            knows_authority: Whether the client is known to trust the authority, without a `control`.

        Raises:
            HostError: *host* is no host name.
        """
        return reaction_of(self.settle(), canonical_host(host), knows_authority=knows_authority)

    def assert_refused(self, *hosts: str, knows_authority: bool = False) -> None:
        """
        Fail unless a client came to each of *hosts*, trusted the authority, and refused the impostor every time.

        Why a client left cannot be seen from outside; one that does not know the authority leaves, too.

        Args:
            hosts: Their names.
            knows_authority: The client is known to trust the authority without a `control`, because its error says so:
                `pinset.PinMismatchError` is raised for chains that have been verified.

        Raises:
            AssertionError: Says what was seen instead.
            HostError: One is no host name.
        """
        for host in hosts:
            self._assert(host, Reaction.REFUSED, self.reaction(host, knows_authority=knows_authority))

    def assert_accepted(self, *hosts: str) -> None:
        """
        Fail unless a client took an impostor of each of *hosts* for the host: the proof that the interception works.

        Raises:
            AssertionError: Says what was seen instead.
            HostError: One is no host name.
        """
        for host in hosts:
            self._assert(host, Reaction.ACCEPTED, self.reaction(host))

    def _assert(self, host: str, expected: Reaction, seen: Reaction | None) -> None:
        if seen is expected:
            return
        lines = [f"{host}: expected that the impostor is {expected}, and saw {seen or 'nobody come'}"]
        lines += [f"  {each.host}:{each.port}: {each.reaction}: {each.detail}" for each in self.contacts]
        if seen is Reaction.LEFT:
            lines.append(
                "  So do clients that do not know the authority. Let this one accept without pins in a control(), or"
            )
            lines.append("  say knows_authority=True if its error tells that the chain was verified.")
        raise AssertionError("\n".join(lines))

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(self._patience)
        conversation = Conversation(
            self._impostors,
            self._upstream,
            now=datetime.now(UTC).replace(microsecond=0),
            is_control=self._is_control,
            note=self._note if self._keep else lambda _, __: None,
        )
        with self._lock:
            self._conversations.append(conversation)
        try:
            with self._held(connection):
                conversation.begin(connection, greet(connection, self._file))
            if certificate := conversation.client_certificate:
                self.client_certificates.append(certificate)
            if contact := conversation.contact():
                self._on_contact(contact)
            conversation.relay(self._closing.is_set)
        finally:
            conversation.close()

    def _hang_up(self) -> None:
        super()._hang_up()
        for conversation in self._conversations:
            conversation.cut()

    def _file(self, path: str) -> bytes | None:
        return self.authority.root_pem.encode() if path == CA_PATH else None

    def _note(self, host: str, data: bytes) -> None:
        with self._lock:
            self.intercepted[host] = self.intercepted.get(host, b"") + data
