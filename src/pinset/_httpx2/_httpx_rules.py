# Made from pinset/_httpx_rules.py by tools/twins.py; change that one.
"""
What is asked of a request, and of the context that it goes over, before anything is connected.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx2

from pinset import _errors
from pinset._enforcement import Trust
from pinset._errors import ContextError
from pinset._hosts import canonical_host
from pinset._httpx2._httpx_errors import CleartextError, HostError, ServerNameError, UnlistedHostError
from pinset._pinner import Pinner
from pinset._policy import Unlisted

if TYPE_CHECKING:
    from httpx2._types import CertTypes

TLS_SCHEMES = frozenset({"https", "wss"})


def check_request(pinner: Pinner, request: httpx2.Request) -> None:
    """
    What can be said about a request before anything is connected.

    Args:
        pinner: The policy in force.
        request: What is to be sent.

    Raises:
        httpx2.UnsupportedProtocol: The URL names no host.
        HostError: The host of the URL has no canonical form.
        CleartextError: A listed host is to be spoken to without TLS.
        UnlistedHostError: No rule covers the host, and unlisted hosts are denied.
        ServerNameError: ``sni_hostname`` names another host.
    """
    policy = pinner.policy
    if not request.url.host:
        raise httpx2.UnsupportedProtocol("Request URL is missing a host.")
    try:
        host = canonical_host(request.url.raw_host.decode("ascii"))
    except _errors.HostError as error:
        raise HostError(str(error), text=error.text) from error
    listed = policy.find(host) is not None
    if request.url.scheme not in TLS_SCHEMES and listed:
        raise CleartextError(
            f"{request.url.scheme}:// to {host}: the host is listed in the policy, and without TLS there is no key"
            f" to check; use {request.url.scheme.replace('http', 'https').replace('ws', 'wss')}://",
            host=host,
        )
    if not listed and policy.unlisted is Unlisted.DENY:
        verdict = pinner.check(host, ()).verdict
        raise UnlistedHostError(verdict.explain(), host=host, verdict=verdict)
    _check_server_name(request.extensions.get("sni_hostname"), host)


def _check_server_name(name: object, host: str) -> None:
    # With another server name, OpenSSL verifies the certificate of that name and the pins of that name are looked up,
    # and the pool hands the connection to later requests for *host* (encode/httpcore2 keys it by the URL alone).
    if name is None:
        return
    text = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
    try:
        same = canonical_host(text) == host
    except _errors.HostError:
        same = False
    if not same:
        raise ServerNameError(
            f"the extension sni_hostname names {text!r}, but the URL names {host!r}: the pins of one host say nothing"
            " about another; put the name into the URL, and the address into a resolver, proxy or uds=",
            host=host,
        )


def origin_context(
    pinner: Pinner,
    verify: ssl.SSLContext | None,
    cert: CertTypes | None,
    *,
    protocols: Sequence[str],
    trust_env: bool,
    trust: Trust = "ca-and-pins",
) -> ssl.SSLContext:
    """
    The context for the origins of a client or transport.

    Args:
        pinner: Whose policy is enforced on it.
        verify: The caller's, or None for the CAs that httpx2 trusts.
        cert: A client certificate, as httpx2 takes it.
        protocols: For ALPN.
        trust_env: Whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` choose the CAs.
        trust: ``pins-only`` for a context that verifies nothing itself.

    Raises:
        ContextError: Pins could not be enforced on it.
    """
    # With the TLS classes they are a tenth of the import, and not every program makes a client.
    from pinset._contexts import context_without_cas, prepare_context, set_alpn, shared_context  # noqa: PLC0415

    if isinstance(verify, (bool, str)):
        raise ContextError(
            "verify is an ssl.SSLContext or nothing: pins add to the verification of certificates and never replace it;"
            " for other CAs give ssl.create_default_context(cafile=…)"
        )
    if verify is not None and cert is not None:
        raise ContextError("load the client certificate into the context: context.load_cert_chain(…)")
    if verify is not None:
        context = verify
    elif trust == "pins-only":
        context = context_without_cas()
    elif cert is not None:
        context = httpx2.create_ssl_context(trust_env=trust_env)  # of its own: the client certificate is in it
    else:
        context = shared_context(httpx2.create_ssl_context, protocols, trust_env=trust_env)
    prepare_context(context, pinner, trust)
    if cert is not None:
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    set_alpn(context, protocols)
    return context


def alpn_protocols(*, http1: bool, http2: bool) -> Sequence[str]:
    """
    The protocols to offer.
    """
    return tuple(name for name, spoken in (("http/1.1", http1), ("h2", http2)) if spoken)
