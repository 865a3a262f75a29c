"""
Where OpenSSL says yes and we have the last word.

Rules of this module:

1. OpenSSL first, then us. Only a chain that OpenSSL verified under ``CERT_REQUIRED`` with ``check_hostname`` is looked
   at, and both are asked for again at every handshake: a context can be changed after it was made. The one exception,
   ``pins-only``, looks at nothing but the leaf; see `pinset._enforcement`.
2. The check is made before our own flight leaves. In TLS 1.3 that is when ``do_handshake`` returns; in TLS 1.2 it is
   the ``SSLWantReadError`` before, while client certificate and Finished still lie in the outgoing BIO.
3. The class is generic: it holds no policy. Its maker hands an `Enforcement` to each object; without one it is a plain
   TLS object, so that a caller's context stays plain elsewhere.
4. Until an object is stamped, every door that would carry data is shut: OpenSSL shakes hands by itself on the first
   ``read`` or ``write``.
5. A resumed handshake is judged by the chain that earned its session, under the policy in force now. Without that chain
   it is refused. See `pinset._sessions`.
6. What differs between versions of Python is in `verified_chain`, at the end.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
import weakref
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from pinset._certificates import read_certificate
from pinset._enforcement import Enforcement
from pinset._errors import CertificateError, ContextError, HostError
from pinset._pinner import Stamp
from pinset._sessions import SESSIONS_LEAK, Session, SessionKey, SessionStore
from pinset._verdict import Decision, Outcome, Verdict

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

TWO_POLICIES = (
    "the context came from pinned_ssl_context() and carries a policy of its own; give the same Pinner to both, or a plain"
    " context to one"
)
# Key exchanges in which the server proves its key before our flight (RFC 5246 section 7.4.3). With static RSA it proves
# nothing until its Finished, and a client certificate would be out before.
_PROVEN_KEY_EXCHANGES = ("TLS_", "ECDHE-", "DHE-")  # OpenSSL's names; TLS_ are those of TLS 1.3
_NO_RENEGOTIATION = int(ssl.OP_NO_RENEGOTIATION)  # as a flag it costs as much as the rest of the questions


class Gate:
    """
    What both TLS classes share: an enforcement, a stamp once the handshake was judged, and shut doors until then.
    """

    _enforcement: Enforcement | None = None
    _early: tuple[list[bytes], Stamp] | None = None
    _stamp: Stamp | None = None
    _refused: Verdict | None = None
    _offered: tuple[Session, Stamp] | None = None

    @property
    def pinset_stamp(self) -> Stamp | None:
        """
        What the handshake of this connection was judged to be, or None before the handshake and without an enforcement.
        """
        return self._stamp

    def enforce(self, enforcement: Enforcement) -> None:
        """
        Judge the handshake that is to come by *enforcement*.

        Raises:
            ContextError: The object already belongs to another pinner.
        """
        if self._enforcement is not None and self._enforcement.pinner is not enforcement.pinner:
            raise ContextError(TWO_POLICIES)
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
        if chain := self._chain(self._enforcement):
            self._early = chain, self._judged(self._enforcement, chain)

    def _judge(self) -> None:
        """
        The handshake is done: stamp the connection, or refuse it.
        """
        if self._enforcement is None:
            return
        if self._tls.session_reused:
            self._stamp = self._judged_by_session(self._enforcement)
            return
        chain = self._chain(self._enforcement)
        if self._early is not None and self._early[0] == chain:
            stamp = self._accepted(self._enforcement, self._enforcement.pinner.renew(self._early[1]))
        else:
            stamp = self._judged(self._enforcement, chain)
        self._early, self._stamp = None, stamp

    def _chain(self, enforcement: Enforcement) -> list[bytes]:
        """What the pins are compared with. Where nothing is verified, only the key of the first certificate is proven."""
        if enforcement.trust == "pins-only":
            return unverified_chain(self._tls)[:1]
        return verified_chain(self._tls)

    def _judged(self, enforcement: Enforcement, chain: list[bytes]) -> Stamp:
        host = self._tls.server_hostname
        if weakness := _weakness(self._tls, enforcement):
            self._refuse(enforcement, weakness)
        assert host is not None  # or `_weakness` would have said so
        stamp = enforcement.pinner.check(host, chain, port=enforcement.port, served=self._served)
        return self._accepted(enforcement, stamp)

    def _judged_by_session(self, enforcement: Enforcement) -> Stamp:
        # The leaf only tells mix-ups of our own store: the server has proven the session's secret and no key.
        if self._offered is None or self._tls.getpeercert(binary_form=True) != self._offered[0].chain[0]:
            self._refuse(enforcement, "the session was resumed, and the chain that earned it is not known")
        if weakness := _weakness(self._tls, enforcement):
            self._refuse(enforcement, weakness)
        assert self._offered is not None  # or it would have been refused
        stamp = enforcement.pinner.renew(self._offered[1])
        enforcement.pinner.tell(stamp.verdict, enforcement.port)
        return self._accepted(enforcement, stamp)

    def _accepted(self, enforcement: Enforcement, stamp: Stamp) -> Stamp:
        if stamp.verdict.decision is Decision.REFUSE:
            self._refused = stamp.verdict
            raise enforcement.error(stamp.verdict)
        if not enforcement.accepts(stamp.verdict):
            self._refuse(
                enforcement, "nothing is verified but pins (trust='pins-only'), and no leaf pin is enforced here"
            )
        return stamp

    def _refuse(self, enforcement: Enforcement, detail: str) -> NoReturn:
        host = self._tls.server_hostname or "localhost"
        self._refused = self._tell_refusal(enforcement, host, detail)
        raise enforcement.error(self._refused)

    def _tell_refusal(self, enforcement: Enforcement, host: str, detail: str) -> Verdict:
        return enforcement.pinner.refuse(
            host, outcome=Outcome.UNVERIFIED, detail=detail, port=enforcement.port, served=self._served
        )

    def _report_unverified(self, error: ssl.SSLCertVerificationError) -> None:
        """OpenSSL has refused the chain, as it does most interceptions: nothing to judge, and something to report."""
        host = self._tls.server_hostname
        if self._enforcement is None or host is None:
            return
        with contextlib.suppress(HostError):  # a name without a canonical form is in no policy, and nobody's concern
            if self._enforcement.pinner.policy.find(host) is not None:
                self._tell_refusal(self._enforcement, host, f"OpenSSL refused the chain: {error.verify_message}")

    def _served(self) -> list[bytes]:
        return unverified_chain(self._tls)

    def _shut(self) -> None:
        """Refuse to carry data: there is no stamp."""
        assert self._enforcement is not None
        if self._refused is not None:
            raise self._enforcement.error(self._refused)
        self._refuse(self._enforcement, "data was to be sent or received before the handshake was checked")


class PinnedSSLObject(Gate, ssl.SSLObject):
    """
    An ``ssl.SSLObject`` whose ``do_handshake`` has pinset's last word. Made by ``SSLContext.wrap_bio``.
    """

    _has_begun = False
    _expected: _Earned | None = None

    @classmethod
    def _create(cls, *args: object, **kwargs: object) -> PinnedSSLObject:
        tls: PinnedSSLObject = super()._create(*args, **kwargs)  # type: ignore[misc]  # private, and the only way in
        tls._enforcement = bare_contexts.get(tls.context)
        return tls

    def do_handshake(self) -> None:
        """
        Shake hands, then judge; see `ssl.SSLObject.do_handshake`.

        Raises:
            ssl.SSLError: As OpenSSL finds it.
            RefusedError: The chain was verified and the pins refuse it. Nothing of our flight has left.
        """
        if self._refused is not None:
            self._shut()
        if not self._has_begun:
            self._has_begun = True
            self._offer_session()
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            self._judge_early()
            raise
        except ssl.SSLCertVerificationError as error:
            self._report_unverified(error)
            raise
        if self._stamp is None:
            self._judge()
            self._note_session()

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes:  # noqa: A002 - as in ssl
        """
        Read decrypted data; refused before the object is stamped.
        """
        if self._stamp is None and self._enforcement is not None:
            self._shut()
        data = super().read(len, buffer)
        if self._expected is not None:
            self._collect_session(self._expected)
        return data

    def write(self, data: ReadableBuffer) -> int:
        """
        Write data to encrypt; refused before the object is stamped.
        """
        if self._stamp is None and self._enforcement is not None:
            self._shut()
        return super().write(data)

    # Sessions. On a socket there are none: it is the bare context's, which knows no ports.

    def _store(self) -> tuple[SessionStore, SessionKey] | None:
        enforcement, host = self._enforcement, self.server_hostname
        if enforcement is None or enforcement.sessions is None or host is None:
            return None
        return enforcement.sessions, (self.context, host, enforcement.port)

    def _offer_session(self) -> None:
        """Offer a session whose chain the policy in force accepts."""
        if (place := self._store()) is None:
            return
        store, key = place
        if (session := store.take(key)) is None:
            return
        assert self._enforcement is not None  # `_store` has looked
        _, host, port = key
        stamp = self._enforcement.pinner.judge(host, session.chain, port)
        if not self._enforcement.accepts(stamp.verdict) or stamp.verdict.at >= session.not_after:
            store.drop(key, session)
            return
        self.session = session.tls
        self._offered = session, stamp

    def _note_session(self) -> None:
        """After the handshake: what became of the offer, and whether there is a session to keep."""
        if (place := self._store()) is None or self._stamp is None:
            return
        store, key = place
        if self.session_reused:
            assert self._offered is not None  # or the handshake would have been refused
            store.resumed(key)
            session = self._offered[0]
            if session.once:
                # Its successor, or the same again if the server sends none.
                self._expected = _Earned(session.chain, session.earned, session.not_after)
            return
        if self._offered is not None:
            store.refused(key, self._offered[0])
        if self._stamp.verdict.decision is Decision.ALLOW and store.wants(key):
            with contextlib.suppress(CertificateError):
                not_after = min(read_certificate(der).not_after for der in self._stamp.chain)
                self._expected = _Earned(self._stamp.chain, store.now(), not_after)
        # TLS 1.2 has its session now; in TLS 1.3 tickets come with the first data (RFC 8446 section 4.6.1).
        if self._expected is not None and self.version() != "TLSv1.3":
            self._collect_session(self._expected)

    def _collect_session(self, earned: _Earned) -> None:
        self._expected = None
        if (place := self._store()) is None:
            return
        store, key = place
        session = self.session
        once = self.version() == "TLSv1.3" and not SESSIONS_LEAK
        if session is not None and (session.has_ticket or self.version() != "TLSv1.3"):
            store.keep(key, Session(session, earned.chain, earned.at, earned.not_after, once))


@dataclass(frozen=True, slots=True)
class _Earned:
    """
    What a session that is still to come will be kept with.
    """

    chain: tuple[bytes, ...]
    at: float
    not_after: datetime


def _weakness(tls: ssl.SSLObject | ssl.SSLSocket, enforcement: Enforcement) -> str:
    """Why the chain of this handshake proves nothing; empty when it does."""
    if enforcement.trust == "ca-and-pins" and (lowered := _lowered(tls.context)):
        return lowered
    if not int(tls.context.options) & _NO_RENEGOTIATION:
        return "OP_NO_RENEGOTIATION of the context was cleared"
    if tls.server_hostname is None:
        return "no server name was given"
    cipher = (tls.cipher() or ("",))[0]
    if not cipher.startswith(_PROVEN_KEY_EXCHANGES):
        return f"the key exchange of {cipher} does not prove the server's key in time"
    return ""


def _lowered(context: ssl.SSLContext) -> str:
    if context.verify_mode is not ssl.CERT_REQUIRED:
        # Under CERT_NONE OpenSSL's "verified" chain holds whatever the peer sent, forged signatures included.
        return "verify_mode of the context was lowered from CERT_REQUIRED"
    if not context.check_hostname:
        return "check_hostname of the context was switched off"
    return ""


# How to judge the objects of a context that carries a policy of its own; contexts of callers are not in it.
bare_contexts: weakref.WeakKeyDictionary[ssl.SSLContext, Enforcement] = weakref.WeakKeyDictionary()


if sys.version_info >= (3, 13):

    def verified_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
        """
        The chain that OpenSSL verified in this handshake, leaf first, DER; empty before, and on a resumed session.
        """
        return tls.get_verified_chain()

    def unverified_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
        """
        What the peer sent, leaf first, DER. It proves nothing but that the peer holds the key of the first.
        """
        return tls.get_unverified_chain()

else:
    import _ssl

    # Public from 3.13 (gh-109109). Before, the getters are on the private object and return certificates, or None.
    def verified_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
        """
        The chain that OpenSSL verified in this handshake, leaf first, DER; empty before, and on a resumed session.
        """
        return _der(tls._sslobj.get_verified_chain())  # type: ignore[union-attr]

    def unverified_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
        """
        What the peer sent, leaf first, DER. It proves nothing but that the peer holds the key of the first.
        """
        return _der(tls._sslobj.get_unverified_chain())  # type: ignore[union-attr]

    def _der(chain: list[_ssl.Certificate] | None) -> list[bytes]:
        return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ()]
