"""
Contexts: what makes an ``ssl.SSLContext`` yield our TLS classes, and the bare context for other libraries.

Rules of this module:

1. A context is pinned as an instance, by ``sslobject_class`` and ``sslsocket_class``. A subclass of ``ssl.SSLContext``
   would cost a hop to a thread in anyio.
2. Only the result counts: a context that takes our classes and yields others is refused, with the reason.
3. A context that clients share is frozen. Its list of ALPN protocols is set once: OpenSSL does not lock it, and
   replacing it while another thread shakes hands has sent freed memory in a ClientHello.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Sequence

from pinset._enforcement import Enforcement, Trust, check_trust, error_class
from pinset._errors import ContextError, PinMismatchError, RefusedError, UnlistedHostError, UnverifiedChainError
from pinset._pinner import Pinner, Pins, as_pinner
from pinset._policy import Policy
from pinset._source import PinSource
from pinset._tls import TWO_POLICIES, PinnedSSLObject, bare_contexts
from pinset._tls_socket import PinnedSSLSocket
from pinset._verdict import Verdict

# Key exchanges in which the server proves nothing before its Finished (RFC 5246 section 7.4.3).
_UNPROVEN_KEY_EXCHANGES = frozenset({"kx-rsa", "kx-rsa-psk"})


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


def pinned_ssl_context(
    pins: PinSource | Pinner | Policy | Pins,
    *,
    cafile: str | None = None,
    capath: str | None = None,
    cadata: str | bytes | None = None,
    trust: Trust = "ca-and-pins",
) -> ssl.SSLContext:
    """
    A plain ``ssl.SSLContext`` that enforces pins in any library: aiohttp, asyncio, urllib3, websockets, asyncpg …

    CA path, expiry and host name are verified as by ``ssl.create_default_context``, and pins in addition. A refusal is
    an ``ssl.SSLCertVerificationError``; libraries that retry on ``ssl.SSLError`` will retry it.

    Args:
        pins: A `PinSource`, a `Pinner` (shared, replaceable), a `Policy`, or pins by host pattern.
        cafile: Trusted CA certificates, PEM; with *capath* and *cadata* as in ``ssl.create_default_context``. Without
            any of them, the system's.
        capath: A directory of them.
        cadata: PEM text or DER bytes.
        trust: ``pins-only`` for servers with a certificate of their own making: no CA, no expiry, no host name, but a
            policy of enforced leaf pins that denies unlisted hosts. A library that sets ``verify_mode`` or
            ``check_hostname`` itself must be told to leave them.

    Returns:
        The context. Load a client certificate with ``load_cert_chain``.

    Raises:
        PolicyError: *pins* makes no policy.
        ContextError: ``ssl`` was altered so that its contexts cannot be pinned (``truststore.inject_into_ssl``); or
            *trust* is ``pins-only``, and CAs were given too or the policy would let somebody in without a leaf pin.
        OSError: A CA file cannot be read.
    """
    pinner = as_pinner(pins)
    if trust == "pins-only":
        if cafile or capath or cadata:
            raise ContextError("trust='pins-only' verifies no chain, so CAs have no use; give one or the other")
        context = context_without_cas()
    else:
        context = ssl.create_default_context(cafile=cafile, capath=capath, cadata=cadata)
    prepare_context(context, pinner, trust)
    bare_contexts[context] = Enforcement(pinner, _ssl_error, trust=trust)
    return context


def context_without_cas() -> ssl.SSLContext:
    """
    A context for ``pins-only``: it verifies no chain, no expiry and no host name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _without_cas.add(context)
    return context


_without_cas: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()


def prepare_context(context: ssl.SSLContext, pinner: Pinner, trust: Trust = "ca-and-pins") -> None:
    """
    Make *context* yield our TLS classes, after making sure that pins can be enforced on it.

    Its objects stay plain until they are given an `Enforcement`.

    Args:
        context: A client context with certificate and host name verification.
        pinner: Whose policy its objects are going to be given.
        trust: ``pins-only`` for a context from `context_without_cas`.

    Raises:
        ContextError: It does not verify what it has to, or the policy cannot carry *trust*; or it has another class of
            TLS objects, ignores the one it is given, or carries the policy of another pinner.
    """
    if not isinstance(context, ssl.SSLContext):
        raise ContextError(f"expected an ssl.SSLContext, got {type(context).__name__}")
    if (bare := bare_contexts.get(context)) is not None and bare.pinner is not pinner:
        raise ContextError(TWO_POLICIES)
    check_trust(trust, pinner.policy)
    if (trust == "pins-only") is not (context in _without_cas):
        raise ContextError(
            "trust='pins-only' makes a context of its own: give no verify=, and use that context for nothing else"
        )
    if trust == "ca-and-pins":
        _check_verification(context)
    is_new = context not in _proven
    if is_new:
        _check_ciphers(context)
    for attribute, ours in (("sslobject_class", PinnedSSLObject), ("sslsocket_class", PinnedSSLSocket)):
        theirs = getattr(context, attribute)
        if theirs not in (ours, getattr(ssl.SSLContext, attribute)):
            raise ContextError(f"the context already has a {attribute} of its own, {theirs.__name__}; give a plain one")
    context.sslobject_class = PinnedSSLObject
    context.sslsocket_class = PinnedSSLSocket
    if is_new:
        _prove(context)
        _proven.add(context)
    # In TLS 1.2 a pinned peer could renegotiate with another certificate, and do_handshake would not be called again.
    context.options |= ssl.OP_NO_RENEGOTIATION


def _check_verification(context: ssl.SSLContext) -> None:
    if context.verify_mode is not ssl.CERT_REQUIRED:
        raise ContextError(
            "the context does not verify certificates; pins add to that: set verify_mode = ssl.CERT_REQUIRED"
            " (for a self-signed server there is trust='pins-only')"
        )
    if not context.check_hostname:
        raise ContextError("the context does not verify host names; pins add to that: set check_hostname = True")


# Contexts that were seen to yield our objects. What costs time is asked once for each; every handshake asks again.
_proven: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()


def _check_ciphers(context: ssl.SSLContext) -> None:
    static_rsa = [c["name"] for c in context.get_ciphers() if c.get("kea") in _UNPROVEN_KEY_EXCHANGES]
    if static_rsa:
        raise ContextError(
            f"the context allows static RSA key exchange ({static_rsa[0]}), which proves the server's key too late;"
            " add ':!kRSA' to set_ciphers"
        )


# Two threads may make clients on one context at a time; see rule 3.
_sharing = threading.RLock()
# The ALPN list of each context that a client uses.
_alpn: weakref.WeakKeyDictionary[ssl.SSLContext, Sequence[str]] = weakref.WeakKeyDictionary()


def set_alpn(context: ssl.SSLContext, protocols: Sequence[str]) -> None:
    """
    Set the protocols that *context* offers, for good.

    Raises:
        ContextError: It already offers others.
    """
    with _sharing:
        if context not in _alpn:
            context.set_alpn_protocols(list(protocols))
            _alpn[context] = protocols
        offered = _alpn[context]
    if offered != protocols:
        raise ContextError(
            "the context already serves a client with another choice of http1= and http2=, and a context has one list of"
            " protocols; make a context for each"
        )


_shared: dict[tuple[object, ...], ssl.SSLContext] = {}
_MOST_SHARED = 8


def shared_context(
    create: Callable[..., ssl.SSLContext], protocols: Sequence[str], *, trust_env: bool
) -> ssl.SSLContext:
    """
    The context of all clients that trust what *create* trusts and offer *protocols*.

    Loading the CAs takes 15 ms (OpenSSL 3.0), in which the event loop stands still. Clients differ in their policies,
    which contexts do not carry.

    Args:
        create: Makes the context, from ``trust_env=``: whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name what it reads.
        protocols: For ALPN.
        trust_env: Handed to *create*.
    """
    places = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")] if trust_env else []
    key = (create, trust_env, tuple(protocols), *((place, _state(place)) for place in places if place))
    with _sharing:
        context = _shared.get(key)
        if context is None:
            context = create(trust_env=trust_env)
            set_alpn(context, protocols)
            while len(_shared) >= _MOST_SHARED:
                del _shared[next(iter(_shared))]
            _shared[key] = context
        return context


def _state(path: str) -> tuple[int, int] | None:
    """What changes when a file or directory of CAs is replaced."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path would be made for this alone
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


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
