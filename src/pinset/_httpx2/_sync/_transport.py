# Made from pinset/_transport.py by tools/twins.py; change that one.
"""
The pinned transport: from httpx2's request to the pool, and the verdict back on the response.

Every road is pinned: direct, CONNECT, HTTPS proxy, SOCKS5. What cannot be pinned is refused when the transport is made.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx2

from pinset._enforcement import Enforcement, Trust
from pinset._errors import ContextError
from pinset._httpx2._httpx_errors import PinMismatchError, UnverifiedChainError, httpx_error
from pinset._httpx2._httpx_rules import TLS_SCHEMES, alpn_protocols, check_request, origin_context
from pinset._pinner import Pinner, Pins, as_pinner
from pinset._policy import Policy
from pinset._source import PinSource

if TYPE_CHECKING:
    from httpcore2 import SOCKET_OPTION
    from httpx2._types import CertTypes, ProxyTypes

    from pinset._httpx2._sync._connect import HTTPProxy
    from pinset._tls_layer import OriginContext

_SOCKS_SCHEMES = frozenset({"socks5", "socks5h"})
_SOCKS_PORT = 1080


class PinnedTransport(httpx2.HTTPTransport):
    """
    An ``httpx2.HTTPTransport`` that enforces pins inside the TLS handshake.

    Give it to ``httpx2.Client(transport=…)``, or to `PinnedClient` in ``mounts``. With ``transport=``, httpx2
    ignores the proxy environment variables, and ``proxy=`` and ``mounts=`` of the client go around the pins: give the
    proxy to the transport, or use `PinnedClient`.

    Args:
        pins: A `PinSource`, a `Pinner` (shared, replaceable), a `Policy`, or pins by host pattern.
        verify: A context with the CAs to trust; by default those that httpx2 trusts. It is made to yield pinset's TLS
            classes, to offer the protocols of this transport, and to refuse renegotiation. Else its other users notice
            nothing; a transport with another choice of *http1* and *http2* needs a context of its own.
        cert: A client certificate: a PEM file with key and chain, or (chain, key) or (chain, key, password).
        trust_env: Whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` choose the CAs.
        proxy: The proxy to go through. Its own TLS is verified by ``Proxy(ssl_context=…)``, and pinned only if that is a
            context from `pinned_ssl_context`.
        http1, http2, limits, uds, local_address, retries, socket_options: As in ``httpx2.HTTPTransport``.
            A pin failure is never retried, unless a `PinSource` has other pins for the host: then once.
        trust: ``pins-only`` for servers with a certificate of their own making: no CA, no expiry and no host name is
            verified, so the policy has to consist of enforced leaf pins and deny unlisted hosts.
        session_resumption: Whether TLS sessions are resumed, which saves half of a handshake. The chain that earned a
            session is judged by the policy in force each time; a session is used for an hour at most.

    Raises:
        PolicyError: *pins* makes no policy.
        ContextError: *verify* is a context on which pins could not be enforced, *pins* cannot carry *trust*, or keywords
            exclude each other.
        OSError: *cert* cannot be read.
    """

    def __init__(
        self,
        pins: PinSource | Pinner | Policy | Pins,
        *,
        verify: ssl.SSLContext | None = None,
        cert: CertTypes | None = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx2.Limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20),
        proxy: ProxyTypes | None = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
        trust: Trust = "ca-and-pins",
        session_resumption: bool = True,
    ) -> None:
        # As in httpx2: loading httpcore2 costs more than all the rest, and not every program makes a transport.
        from pinset._httpx2._sync._connect import Connector  # noqa: PLC0415
        from pinset._httpx2._sync._network import PinnedBackend  # noqa: PLC0415
        from pinset._httpx2._sync._pool import PinnedPool  # noqa: PLC0415
        from pinset._sessions import SessionStore  # noqa: PLC0415
        from pinset._httpx2._sync._socks import SocksBackend  # noqa: PLC0415
        from pinset._tls_layer import OriginContext  # noqa: PLC0415

        self._pinner = as_pinner(pins)
        self._source = pins if isinstance(pins, PinSource) else None
        if not (http1 or http2):
            raise ContextError("http1=False and http2=False leave no protocol to speak; allow one")
        if uds is not None and proxy is not None:
            raise ContextError("uds= and proxy= are two ways to the origin; give one of them")
        context = origin_context(
            self._pinner,
            verify,
            cert,
            protocols=alpn_protocols(http1=http1, http2=http2),
            trust_env=trust_env,
            trust=trust,
        )
        sessions = SessionStore() if session_resumption else None

        def context_for(host: str, port: int) -> OriginContext:  # noqa: ARG001 - the TLS object knows the host
            return OriginContext(context, Enforcement(self._pinner, httpx_error, sessions, port, trust))

        backend, http_proxy = PinnedBackend(), None
        if isinstance(proxy, (str, httpx2.URL)):
            proxy = httpx2.Proxy(proxy)
        if proxy is not None and proxy.url.scheme in _SOCKS_SCHEMES:
            backend = SocksBackend(proxy.url.host, proxy.url.port or _SOCKS_PORT, proxy.raw_auth)
        elif proxy is not None:
            http_proxy = _http_proxy(proxy, trust_env=trust_env)
        self._pool = PinnedPool(  # type: ignore[assignment]  # of httpcore2's pool, httpx2 uses no more than this has
            Connector(
                backend=backend,
                context_for=context_for,
                proxy=http_proxy,
                http1=http1,
                http2=http2,
                uds=uds,
                local_address=local_address,
                retries=retries,
                socket_options=socket_options or (),
            ),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            rereadable=(httpx2.ByteStream,),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """
        Send *request*, over a connection that the policy in force accepts.

        Returns:
            The response; its ``extensions["pinset"]`` is the `Verdict` on the connection.

        Raises:
            RefusedError: As a class of this module, which is also an ``httpx2.TransportError``.
            HostError: The host of the URL has no canonical form.
            httpx2.TransportError: As ``httpx2.HTTPTransport``.
        """
        check_request(self._pinner, request)
        try:
            response = super().handle_request(request)
        except PinMismatchError as error:
            # The handshake was refused, so nothing of the request was sent and nothing of its body was read.
            if self._source is None or not self._source.renew_blocking(error):
                raise
            check_request(self._pinner, request)
            response = super().handle_request(request)
        stream = response.extensions.get("network_stream")
        if stream is not None and request.url.scheme in TLS_SCHEMES:
            verdict = stream.get_extra_info("pinset")
            if verdict is None:
                response.close()
                raise UnverifiedChainError(
                    "the response came over a connection without a verdict", host=request.url.host
                )
            response.extensions["pinset"] = verdict
        return response


def _http_proxy(proxy: httpx2.Proxy, *, trust_env: bool) -> HTTPProxy:
    import httpcore2  # noqa: PLC0415 - see PinnedTransport

    from pinset._httpx2._sync._connect import HTTPProxy  # noqa: PLC0415 - likewise
    from pinset._contexts import shared_context  # noqa: PLC0415 - likewise
    from pinset._tls import bare_contexts  # noqa: PLC0415 - likewise
    from pinset._tls_layer import OriginContext  # noqa: PLC0415 - likewise

    url, context = proxy.url, proxy.ssl_context
    if url.scheme == "https" and context is None:
        context = shared_context(httpx2.create_ssl_context, ("http/1.1",), trust_env=trust_env)
    if url.scheme != "https" and context is not None:
        raise ContextError(
            "the proxy is spoken to without TLS, so its ssl_context has no use; use an https:// proxy URL"
        )
    port = url.port or (443 if url.scheme == "https" else 80)
    leg: ssl.SSLContext | OriginContext | None = context
    if context is not None and (bare := bare_contexts.get(context)) is not None:
        # Its own errors are those of ssl, which the connector takes for a failed connection, and tries again.
        leg = OriginContext(context, replace(bare, error=httpx_error, port=port))
    return HTTPProxy(httpcore2.Origin(url.raw_scheme, url.raw_host, port), proxy.raw_auth, tuple(proxy.headers.raw), leg)
