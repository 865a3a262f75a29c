"""
Impostors: certificates made on the spot for whatever host a client asks for, and how a client's answer to them is read.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Literal

from pinset._pins import Pin
from pinset.operate.interception import Reaction
from pinset.testing._authority import Authority, Identity

# The alerts (RFC 8446 section 6.2) of clients that did not get as far as to judge a certificate. Of the others, only "unknown
# CA" has one meaning: Java, Go and browsers say "bad certificate" or "certificate unknown" for an unknown authority, too.
_OF_NEGOTIATION = {
    "certificate expired",
    "decode error",
    "illegal parameter",
    "insufficient security",
    "missing extension",
    "no application protocol",
    "protocol version",
    "unexpected message",
    "unsupported extension",
}


Stage = Literal["before", "in", "after"]
"""Before a client was shown the certificate, in the handshake after that, or after the handshake."""


class Impostors:
    """
    Server contexts for any host, signed by one authority.

    Args:
        authority: Signs them.
        clients: The authority of client certificates to ask for; None asks for none.
    """

    def __init__(self, authority: Authority, clients: Authority | None) -> None:
        self._authority = authority
        self._clients = clients
        self._lock = threading.Lock()
        self._identities: dict[tuple[str, ...], Identity] = {}
        self._contexts: dict[tuple[tuple[str, ...], tuple[str, ...]], ssl.SSLContext] = {}

    def pin(self, names: tuple[str, ...]) -> Pin:
        """
        The pin of the key that is shown for *names*.
        """
        return Pin.from_certificate(self._identity(names).chain[0])

    def context(self, names: tuple[str, ...], alpn: Sequence[str]) -> ssl.SSLContext:
        """
        A server's context with a certificate for *names*.
        """
        identity = self._identity(names)
        with self._lock:
            key = names, tuple(alpn)
            if key not in self._contexts:
                self._contexts[key] = identity.server_context(alpn=alpn)
                if self._clients is not None:
                    self._contexts[key].load_verify_locations(cadata=self._clients.root_pem)
            return self._contexts[key]

    def greeter(self, choose: Callable[[str | None], ssl.SSLContext]) -> ssl.SSLContext:
        """
        A context without a certificate that leaves everything to another as soon as the ClientHello has come.

        Args:
            choose: Returns that other for the server name in the ClientHello (RFC 6066 section 3), if there is one.
        """

        def on_client_hello(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = choose(name)

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = on_client_hello
        # Who comes again is shown the certificate again. And a ticket would be written to clients that have left already, and
        # so could not be told from those that left in the handshake.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        if self._clients is not None:  # the other gives certificates and authorities; what is asked for stays ours
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _identity(self, names: tuple[str, ...]) -> Identity:
        with self._lock:
            if names not in self._identities:
                self._identities[names] = self._authority.issue(*names)
            return self._identities[names]


def read_refusal(error: OSError, *, stage: Stage) -> tuple[Reaction, str]:
    """
    What it means that a client broke off with *error*.

    Args:
        error: From the server's side of the handshake, or of the first read.
        stage: When.

    Returns:
        The reaction, and what was seen, in words.
    """
    reason = getattr(error, "reason", None) or ""
    if "ALERT_" in reason:
        alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
        if alert == "unknown ca":
            return Reaction.UNTRUSTED, "it sent the alert: unknown ca"
        return Reaction.UNFINISHED if alert in _OF_NEGOTIATION else Reaction.LEFT, f"it sent the alert: {alert}"
    if isinstance(error, TimeoutError):
        return Reaction.UNFINISHED, f"it said no more {stage} the handshake"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        reaction = Reaction.UNFINISHED if stage == "before" else Reaction.LEFT
        return reaction, f"it hung up {stage} the handshake, without an alert"
    return Reaction.UNFINISHED, f"no handshake: {reason or error}"
