"""
A throw-away HTTPS server with everything that pins need: authority, keys in service and in reserve, and a rotation.
"""

from __future__ import annotations

import ssl
from typing import Literal

from pinset.testing._authority import Authority, Identity, KeyKind
from pinset.testing._http2 import Responder
from pinset.testing._server import TLSServer

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class HTTPSServer(TLSServer):
    """
    A server for *hosts* on a free port of 127.0.0.1, while its ``with`` block lasts.

    It has a key in service and a backup, both pinned by `pins`; `rotate` puts the backup into service.

    Args:
        hosts: Names and addresses for its certificates; ``localhost`` by default.
        authority: Who issues them; by default one of its own, with an intermediate.
        key: ``"ec"`` or ``"rsa"``, for an authority of its own.
        tls: ``"1.2"`` or ``"1.3"``; by default whatever OpenSSL offers.
        http2: Whether it speaks HTTP/2, too, and prefers it.
        client_certificates: Whether it requires one of `clients`, as `client` is.
        respond: Makes the response, head and body as HTTP/1.1 writes them, from the request head.

    Attributes:
        authority: Who issues its certificates. Make the client trust it.
        clients: Who issues client certificates.
        client: A client certificate.
        in_service: The key and chain that it shows.
        backup: Those that the next rotation will put into service.
        seen: What it saw.
    """

    def __init__(
        self,
        *hosts: str,
        authority: Authority | None = None,
        key: KeyKind = "ec",
        tls: Literal["1.2", "1.3"] | None = None,
        http2: bool = False,
        client_certificates: bool = False,
        respond: Responder | None = None,
    ) -> None:
        self.hosts = hosts or ("localhost", "127.0.0.1", "::1")
        self.authority = authority or Authority(key=key)
        self.clients = Authority("Clients", intermediate=False)
        self.client: Identity = self.clients.issue("client", client=True)
        self._tls = _VERSIONS[tls] if tls else None
        self._alpn = ("h2", "http/1.1") if http2 else ("http/1.1",)
        self._wants_certificates = client_certificates
        self.in_service, self.backup = self.authority.issue(*self.hosts), self.authority.issue(*self.hosts)
        super().__init__(self._context_of(self.in_service), respond=respond)

    @property
    def pins(self) -> dict[str, list[str]]:
        """
        The short form of a policy for it: for each host the pin in service, then the backup's.
        """
        return {host: [self.in_service.pin, self.backup.pin] for host in self.hosts}

    def url(self, host: str = "", path: str = "/") -> str:
        """
        The ``https`` URL of *path*, under its first name by default.
        """
        return super().url(host or self.hosts[0], path)

    def rotate(self, *, hang_up: bool = True) -> None:
        """
        Put the backup into service, and make another one. `pins` are then those of after the rotation.

        Args:
            hang_up: Cut the connections that are open, so that the next request meets the new key.
        """
        self.in_service, self.backup = self.backup, self.authority.issue(*self.hosts)
        self.show(self.in_service, hang_up=hang_up)

    def show(self, identity: Identity, *, hang_up: bool = True) -> None:
        """
        Show any identity: a renewed certificate, a stranger's, one of `pinset.testing.hostile_chains`. `pins` stay.

        Args:
            identity: What it shows from now on.
            hang_up: Cut the connections that are open, so that the next request meets it.
        """
        self.replace_context(self._context_of(identity))
        if hang_up:
            self.hang_up()

    def client_context(self, *others: Authority) -> ssl.SSLContext:
        """
        A plain client context that trusts its authority and *others*, and has its client certificate if it wants one.
        """
        context = self.authority.client_context(*others)
        if self._wants_certificates:
            self.client.load_into(context)
        return context

    def _context_of(self, identity: Identity) -> ssl.SSLContext:
        clients = self.clients if self._wants_certificates else None
        return identity.server_context(tls=self._tls, alpn=self._alpn, clients=clients)
