"""
The TLS class of blocking sockets: sync libraries, through `pinset.pinned_ssl_context`.

On a socket OpenSSL sends our flight itself, so a client certificate has left before the check; no application byte has.
Where that matters, use `pinset._tls.PinnedSSLObject`. Sessions are not resumed here: the bare context knows no ports.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from pinset._tls import Gate, bare_contexts

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class PinnedSSLSocket(Gate, ssl.SSLSocket):
    """
    An ``ssl.SSLSocket`` that carries nothing before pinset has judged its handshake. Made by ``wrap_socket``.

    On a socket OpenSSL sends our flight itself, so a client certificate has left before the check; no application byte
    has. Where that matters, use `PinnedSSLObject`.
    """

    @classmethod
    def _create(cls, *args: object, **kwargs: object) -> PinnedSSLSocket:
        # The handshake may take place inside, so the enforcement is found by `_bound` and not set here.
        return super()._create(*args, **kwargs)  # type: ignore[misc,no-any-return]  # private, and the only way in

    def do_handshake(self, block: bool = False) -> None:
        """
        Shake hands, then judge; see `ssl.SSLSocket.do_handshake`. A refused socket is closed.

        Raises:
            ssl.SSLError: As OpenSSL finds it.
            RefusedError: The chain was verified and the pins refuse it. No application byte has left.
        """
        self._bind()
        try:
            super().do_handshake(block)
        except ssl.SSLCertVerificationError as error:
            self._report_unverified(error)
            raise
        if self._stamp is not None:
            return
        try:
            self._judge()
        except BaseException:
            self.close()
            raise

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Refused before the socket is stamped, and after TLS has ended."""
        self._check_open()
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Refused before the socket is stamped, and after TLS has ended."""
        self._check_open()
        super().sendall(data, flags)

    def sendto(self, *args: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refused before the socket is stamped; TLS sockets have no use for it after."""
        self._check_open()
        return super().sendto(*args)  # type: ignore[call-overload,no-any-return]

    def sendfile(self, *args: object, **kwargs: object) -> int:
        """Refused before the socket is stamped, and after TLS has ended."""
        self._check_open()
        return super().sendfile(*args, **kwargs)  # type: ignore[arg-type]

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Refused before the socket is stamped, and after TLS has ended."""
        self._check_open()
        return super().recv(buflen, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Refused before the socket is stamped, and after TLS has ended."""
        self._check_open()
        return super().recv_into(buffer, nbytes, flags)

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes:  # noqa: A002 - as in ssl
        """Refused before the socket is stamped."""
        self._check_open()
        return super().read(len, buffer)

    def write(self, data: ReadableBuffer) -> int:
        """Refused before the socket is stamped."""
        self._check_open()
        return super().write(data)

    def _bind(self) -> None:
        if self._enforcement is None:
            self._enforcement = bare_contexts.get(self.context)

    def _check_open(self) -> None:
        tls = self._sslobj  # type: ignore[attr-defined]  # None before connect and after unwrap, shutdown and close
        if self._stamp is not None and tls is not None:
            return
        self._bind()
        # An unconnected or closed socket is left to the operating system's own error. A connected one without TLS
        # would send in the clear: after unwrap(), or after a handshake that failed in connect().
        if (
            self._enforcement is None
            or not (tls is not None or getattr(self, "_connected", False))
            or self.fileno() < 0
        ):
            return
        if self._stamp is not None:
            # No interception, and so no report.
            raise ssl.SSLError(
                ssl.SSL_ERROR_SSL, "TLS has ended on this socket, and the policy sends nothing in the clear"
            )
        self._shut()
