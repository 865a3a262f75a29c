"""
Where OpenSSL says yes and we have the last word.

Rules of this module:

1. OpenSSL first, then us. Only a chain that OpenSSL verified under ``CERT_REQUIRED`` with ``check_hostname`` is looked
   at, and both are asked for again at every handshake: a context can be changed after it was made.
2. The check is made before our own flight leaves. In TLS 1.3 that is when ``do_handshake`` returns; in TLS 1.2 it is
   the ``SSLWantReadError`` before, while client certificate and Finished still lie in the outgoing BIO.
3. The class is generic: it holds no policy. Its maker hands an `Enforcement` to each object; without one it is a plain
   TLS object, so that a caller's context stays plain elsewhere.
4. Until an object is stamped, every door that would carry data is shut: OpenSSL shakes hands by itself on the first
   ``read`` or ``write``.
5. What differs between versions of Python is in `verified_chain`, at the end.
"""

from __future__ import annotations

import socket
import ssl
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinset._errors import (
    ContextError,
    PinMismatchError,
    RefusedError,
    UnlistedHostError,
    UnverifiedChainError,
)
from pinset._pinner import Pinner, Pins, Stamp, as_pinner
from pinset._policy import Policy
from pinset._verdict import Decision, Outcome, Verdict

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_TWO_POLICIES = (
    "the context came from pinned_ssl_context() and carries a policy of its own; give the same Pinner to both, or a plain"
    " context to one"
)
# Key exchanges in which the server proves its key before our flight (RFC 5246 section 7.4.3). With static RSA it proves
# nothing until its Finished, and a client certificate would be out before.
_PROVEN_KEY_EXCHANGES = ("TLS_", "ECDHE-", "DHE-")  # OpenSSL's names; TLS_ are those of TLS 1.3
_NO_RENEGOTIATION = int(ssl.OP_NO_RENEGOTIATION)  # as a flag it costs as much as the rest of the questions
_UNPROVEN_KEY_EXCHANGES = frozenset({"kx-rsa", "kx-rsa-psk"})

_ERRORS: dict[Outcome, type[RefusedError]] = {
    Outcome.MATCHED: PinMismatchError,  # an expired pin set that blocks
    Outcome.MISMATCHED: PinMismatchError,
    Outcome.UNLISTED: UnlistedHostError,
}


def error_class(verdict: Verdict) -> type[RefusedError]:
    """
    The class of error that a refusing verdict calls for.
    """
    return _ERRORS.get(verdict.outcome, UnverifiedChainError)


@dataclass(frozen=True, slots=True)
class Enforcement:
    """
    What a TLS object needs to judge its handshake.

    Attributes:
        pinner: The policy in force.
        error: Turns a refusing verdict into the error of the boundary.
    """

    pinner: Pinner
    error: Callable[[Verdict], Exception]


class _SSLBoundary(ssl.SSLCertVerificationError):
    """
    A refusal as ``ssl`` users expect it: they catch `ssl.SSLError`, and asyncio closes on it without an error log.
    """

    def __init__(self, message: str, *, host: str = "", verdict: Verdict | None = None) -> None:
        # An OSError made from Python has its message in strerror; trio looks for text there, and callers in the rest.
        super().__init__(ssl.SSL_ERROR_SSL, message)
        self.host = host
        self.verdict = verdict
        self.library = "pinset"
        self.reason = "PIN_CHECK_FAILED"
        self.verify_code = 0
        self.verify_message = message

    def __str__(self) -> str:
        return self.verify_message

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.verify_message,), {"host": self.host, "verdict": self.verdict})


class PinMismatchSSLError(_SSLBoundary, PinMismatchError):
    """
    `pinset.PinMismatchError` from a bare context; also an ``ssl.SSLCertVerificationError``.
    """


class UnlistedHostSSLError(_SSLBoundary, UnlistedHostError):
    """
    `pinset.UnlistedHostError` from a bare context; also an ``ssl.SSLCertVerificationError``.
    """


class UnverifiedChainSSLError(_SSLBoundary, UnverifiedChainError):
    """
    `pinset.UnverifiedChainError` from a bare context; also an ``ssl.SSLCertVerificationError``.
    """


_SSL_ERRORS: dict[type[RefusedError], type[_SSLBoundary]] = {
    PinMismatchError: PinMismatchSSLError,
    UnlistedHostError: UnlistedHostSSLError,
    UnverifiedChainError: UnverifiedChainSSLError,
}


def _ssl_error(verdict: Verdict) -> Exception:
    return _SSL_ERRORS[error_class(verdict)](verdict.explain(), host=verdict.host, verdict=verdict)


class _Gate:
    """
    What both TLS classes share: an enforcement, a stamp once the handshake was judged, and shut doors until then.
    """

    _enforcement: Enforcement | None = None
    _early: tuple[list[bytes], Stamp] | None = None
    _stamp: Stamp | None = None
    _refusal: Exception | None = None

    @property
    def pinset_stamp(self) -> Stamp | None:
        """
        The verdict of this connection, or None before the handshake and without an enforcement.
        """
        return self._stamp

    def enforce(self, enforcement: Enforcement) -> None:
        """
        Judge the handshake that is to come by *enforcement*.

        Raises:
            ContextError: The object already belongs to another pinner.
        """
        if self._enforcement is not None and self._enforcement.pinner is not enforcement.pinner:
            raise ContextError(_TWO_POLICIES)
        self._enforcement = enforcement

    @property
    def _tls(self) -> ssl.SSLObject | ssl.SSLSocket:
        return self  # type: ignore[return-value]  # a gate is always mixed into one of the two

    def _judge_early(self) -> None:
        """
        TLS 1.2: the chain is verified, and our flight lies in the outgoing BIO. Judge before anybody sends it.
        """
        # OpenSSL sets the cipher when it writes our ChangeCipherSpec. Before that, the server's flight is incomplete and
        # nothing of ours can leave.
        if self._enforcement is None or self._early is not None or self._tls.cipher() is None:
            return
        if chain := verified_chain(self._tls):
            self._early = chain, self._judged(self._enforcement, chain)

    def _judge(self) -> None:
        """
        The handshake is done: stamp the connection, or refuse it.
        """
        if self._enforcement is None:
            return
        chain = verified_chain(self._tls)
        if self._early is not None and self._early[0] == chain:
            stamp = self._accepted(self._enforcement, self._enforcement.pinner.renew(self._early[1]))
        else:
            stamp = self._judged(self._enforcement, chain)
        self._early, self._stamp = None, stamp

    def _judged(self, enforcement: Enforcement, chain: list[bytes]) -> Stamp:
        host = self._tls.server_hostname
        if weakness := _weakness(self._tls):
            self._refuse(enforcement, weakness)
        assert host is not None  # or `_weakness` would have said so
        return self._accepted(enforcement, enforcement.pinner.check(host, chain))

    def _accepted(self, enforcement: Enforcement, stamp: Stamp) -> Stamp:
        if stamp.verdict.decision is Decision.REFUSE:
            self._refusal = enforcement.error(stamp.verdict)
            raise self._refusal
        return stamp

    def _refuse(self, enforcement: Enforcement, detail: str) -> None:
        host = self._tls.server_hostname or "localhost"
        verdict = enforcement.pinner.refuse(host, outcome=Outcome.UNVERIFIED, detail=detail)
        self._refusal = enforcement.error(verdict)
        raise self._refusal

    def _shut(self) -> None:
        """Refuse to carry data: there is no stamp."""
        if self._refusal is not None:
            raise self._refusal
        assert self._enforcement is not None
        self._refuse(self._enforcement, "data was to be sent or received before the handshake was checked")


class PinnedSSLObject(_Gate, ssl.SSLObject):
    """
    An ``ssl.SSLObject`` whose ``do_handshake`` has pinset's last word. Made by ``SSLContext.wrap_bio``.
    """

    @classmethod
    def _create(cls, *args: object, **kwargs: object) -> PinnedSSLObject:
        tls: PinnedSSLObject = super()._create(*args, **kwargs)  # type: ignore[misc]  # private, and the only way in
        tls._enforcement = _bare_contexts.get(tls.context)
        return tls

    def do_handshake(self) -> None:
        """
        Shake hands, then judge; see `ssl.SSLObject.do_handshake`.

        Raises:
            ssl.SSLError: As OpenSSL finds it.
            RefusedError: The chain was verified and the pins refuse it. Nothing of our flight has left.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            self._judge_early()
            raise
        self._judge()

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes:  # noqa: A002 - as in ssl
        """
        Read decrypted data; refused before the object is stamped.
        """
        if self._stamp is None and self._enforcement is not None:
            self._shut()
        return super().read(len, buffer)

    def write(self, data: ReadableBuffer) -> int:
        """
        Write data to encrypt; refused before the object is stamped.
        """
        if self._stamp is None and self._enforcement is not None:
            self._shut()
        return super().write(data)


class PinnedSSLSocket(_Gate, ssl.SSLSocket):
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
        super().do_handshake(block)
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
            self._enforcement = _bare_contexts.get(self.context)

    def _check_open(self) -> None:
        tls = self._sslobj  # type: ignore[attr-defined]  # None before connect and after unwrap, shutdown and close
        if self._stamp is not None and tls is not None:
            return
        self._bind()
        # An unconnected or closed socket is left to the operating system's own error. A connected one without TLS
        # would send in the clear: after unwrap(), or after a handshake that failed in connect().
        if (
            self._enforcement is not None
            and (tls is not None or getattr(self, "_connected", False))
            and self.fileno() >= 0
        ):
            self._shut()


def _weakness(tls: ssl.SSLObject | ssl.SSLSocket) -> str:  # noqa: PLR0911 - one line for each
    """Why the chain of this handshake proves nothing; empty when it does."""
    context = tls.context
    if context.verify_mode is not ssl.CERT_REQUIRED:
        # Under CERT_NONE OpenSSL's "verified" chain holds whatever the peer sent, forged signatures included.
        return "verify_mode of the context was lowered from CERT_REQUIRED"
    if not context.check_hostname:
        return "check_hostname of the context was switched off"
    if not int(context.options) & _NO_RENEGOTIATION:
        return "OP_NO_RENEGOTIATION of the context was cleared"
    if tls.server_hostname is None:
        return "no server name was given"
    if tls.session_reused:
        return "the session was resumed, and the chain that earned it is not known"
    cipher = (tls.cipher() or ("",))[0]
    if not cipher.startswith(_PROVEN_KEY_EXCHANGES):
        return f"the key exchange of {cipher} does not prove the server's key in time"
    return ""


# The pinner of a context made by `pinned_ssl_context`; contexts of callers are not in it.
_bare_contexts: weakref.WeakKeyDictionary[ssl.SSLContext, Enforcement] = weakref.WeakKeyDictionary()


def pinned_ssl_context(
    pins: Pinner | Policy | Pins,
    *,
    cafile: str | None = None,
    capath: str | None = None,
    cadata: str | bytes | None = None,
) -> ssl.SSLContext:
    """
    A plain ``ssl.SSLContext`` that enforces pins in any library: aiohttp, asyncio, urllib3, websockets, asyncpg …

    CA path, expiry and host name are verified as by ``ssl.create_default_context``, and pins in addition. A refusal is
    an ``ssl.SSLCertVerificationError``; libraries that retry on ``ssl.SSLError`` will retry it.

    Args:
        pins: A `Pinner` (shared, replaceable), a `Policy`, or pins by host pattern.
        cafile: Trusted CA certificates, PEM; with *capath* and *cadata* as in ``ssl.create_default_context``. Without
            any of them, the system's.
        capath: A directory of them.
        cadata: PEM text or DER bytes.

    Returns:
        The context. Load a client certificate with ``load_cert_chain``.

    Raises:
        PolicyError: *pins* makes no policy.
        ContextError: ``ssl`` was altered so that its contexts cannot be pinned (``truststore.inject_into_ssl``).
        OSError: A CA file cannot be read.
    """
    pinner = as_pinner(pins)
    context = ssl.create_default_context(cafile=cafile, capath=capath, cadata=cadata)
    prepare_context(context, pinner)
    _bare_contexts[context] = Enforcement(pinner, _ssl_error)
    return context


def prepare_context(context: ssl.SSLContext, pinner: Pinner) -> None:
    """
    Make *context* yield our TLS classes, after making sure that pins can be enforced on it.

    Its objects stay plain until they are given an `Enforcement`.

    Args:
        context: A client context with certificate and host name verification.
        pinner: Whose policy its objects are going to be given.

    Raises:
        ContextError: It does not verify, has another class of TLS objects, ignores the one it is given, or carries
            the policy of another pinner.
    """
    if not isinstance(context, ssl.SSLContext):
        raise ContextError(f"expected an ssl.SSLContext, got {type(context).__name__}")
    if (bare := _bare_contexts.get(context)) is not None and bare.pinner is not pinner:
        raise ContextError(_TWO_POLICIES)
    if context.verify_mode is not ssl.CERT_REQUIRED:
        raise ContextError(
            "the context does not verify certificates; pins add to that: set verify_mode = ssl.CERT_REQUIRED"
        )
    if not context.check_hostname:
        raise ContextError("the context does not verify host names; pins add to that: set check_hostname = True")
    static_rsa = [c["name"] for c in context.get_ciphers() if c.get("kea") in _UNPROVEN_KEY_EXCHANGES]
    if static_rsa:
        raise ContextError(
            f"the context allows static RSA key exchange ({static_rsa[0]}), which proves the server's key too late;"
            " add ':!kRSA' to set_ciphers"
        )
    for attribute, ours in (("sslobject_class", PinnedSSLObject), ("sslsocket_class", PinnedSSLSocket)):
        theirs = getattr(context, attribute)
        if theirs not in (ours, getattr(ssl.SSLContext, attribute)):
            raise ContextError(f"the context already has a {attribute} of its own, {theirs.__name__}; give a plain one")
    context.sslobject_class = PinnedSSLObject
    context.sslsocket_class = PinnedSSLSocket
    _prove(context)
    # In TLS 1.2 a pinned peer could renegotiate with another certificate, and do_handshake would not be called again.
    context.options |= ssl.OP_NO_RENEGOTIATION


def _prove(context: ssl.SSLContext) -> None:
    """
    A truststore context, and other look-alikes, take the attribute and ignore it. Only the result counts.
    """
    made = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="pinset.invalid")
    with socket.socket() as unconnected:
        wrapped = context.wrap_socket(unconnected, server_hostname="pinset.invalid")
        wrapped.close()
    if not isinstance(made, PinnedSSLObject) or not isinstance(wrapped, PinnedSSLSocket):
        kind = f"{type(context).__module__}.{type(context).__name__}"
        raise ContextError(
            f"{kind} ignores the class of TLS objects that it is given, so pins would never be checked;"
            " give a plain ssl.SSLContext (for the system's trust store: ssl.create_default_context())"
        )


if sys.version_info >= (3, 13):

    def verified_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
        """
        The chain that OpenSSL verified in this handshake, leaf first, DER; empty before, and on a resumed session.
        """
        return tls.get_verified_chain()

else:
    import _ssl

    # Public from 3.13 (gh-109109). Before, the getter is on the private object and returns certificates, or None.
    def verified_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
        """
        The chain that OpenSSL verified in this handshake, leaf first, DER; empty before, and on a resumed session.
        """
        chain = tls._sslobj.get_verified_chain()  # type: ignore[union-attr]
        return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ()]
