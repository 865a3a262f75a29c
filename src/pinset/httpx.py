"""
The transport and the client for ``httpx``.

Rules of this module:

1. Every road is pinned: direct, CONNECT, HTTPS proxy, SOCKS5, environment proxies, redirects. What cannot be pinned is
   refused when the client is made.
2. A refusal is an ``httpx.TransportError``, so that httpx attaches the request and ``except httpx.HTTPError`` sees it.
   It is no ``ConnectError``: httpcore and retrying transports would try again, and a pin failure is final.
3. Rules about a request that need no handshake are asked before anything is connected.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx

from pinset import _errors
from pinset._contexts import prepare_context, set_alpn, shared_context
from pinset._errors import ContextError, RefusedError
from pinset._hosts import canonical_host
from pinset._pinner import Pinner, Pins, as_pinner
from pinset._policy import Policy, Unlisted
from pinset._sessions import SessionStore
from pinset._source import PinSource
from pinset._tls import Enforcement, error_class
from pinset._verdict import Verdict

if TYPE_CHECKING:
    from httpcore._backends.base import SOCKET_OPTION
    from httpx._types import AuthTypes, CertTypes, CookieTypes, HeaderTypes, ProxyTypes, QueryParamTypes, TimeoutTypes

    from pinset._connect import HTTPProxy
    from pinset._network import OriginContext

__all__ = [
    "CleartextError",
    "PinMismatchError",
    "PinnedAsyncClient",
    "PinnedAsyncTransport",
    "ServerNameError",
    "UnlistedHostError",
    "UnverifiedChainError",
]


class PinMismatchError(_errors.PinMismatchError, httpx.TransportError):
    """
    `pinset.PinMismatchError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class UnverifiedChainError(_errors.UnverifiedChainError, httpx.TransportError):
    """
    `pinset.UnverifiedChainError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class UnlistedHostError(_errors.UnlistedHostError, httpx.TransportError):
    """
    `pinset.UnlistedHostError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class CleartextError(_errors.CleartextError, httpx.UnsupportedProtocol):
    """
    `pinset.CleartextError` from an httpx client; also an ``httpx.UnsupportedProtocol`` with ``.request``.
    """


class ServerNameError(_errors.ServerNameError, httpx.TransportError):
    """
    `pinset.ServerNameError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class HostError(_errors.HostError, httpx.InvalidURL):
    """
    `pinset.HostError` for the host of a URL; also an ``httpx.InvalidURL``.
    """


class PinnedAsyncTransport(httpx.AsyncHTTPTransport):
    """
    An ``httpx.AsyncHTTPTransport`` that enforces pins inside the TLS handshake.

    Give it to ``httpx.AsyncClient(transport=…)``, or to `PinnedAsyncClient` in ``mounts``. With ``transport=``, httpx
    ignores the proxy environment variables, and ``proxy=`` and ``mounts=`` of the client go around the pins: give the
    proxy to the transport, or use `PinnedAsyncClient`.

    Args:
        pins: A `PinSource`, a `Pinner` (shared, replaceable), a `Policy`, or pins by host pattern.
        verify: A context with the CAs to trust. It is made to yield pinset's TLS classes; its other users notice
            nothing. By default the CAs that httpx trusts.
        cert: A client certificate: a PEM file with key and chain, or (chain, key) or (chain, key, password).
        trust_env: Whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` choose the CAs.
        proxy: The proxy to go through. Its own TLS is verified by ``Proxy(ssl_context=…)`` and not pinned.
        http1, http2, limits, uds, local_address, retries, socket_options: As in ``httpx.AsyncHTTPTransport``.
            A pin failure is never retried.
        session_resumption: Whether TLS sessions are resumed, which saves half of a handshake. The chain that earned a
            session is judged by the policy in force each time; a session is used for an hour at most.

    Raises:
        PolicyError: *pins* makes no policy.
        ContextError: *verify* is a context on which pins could not be enforced.
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
        limits: httpx.Limits = httpx.Limits(max_connections=100, max_keepalive_connections=20),
        proxy: ProxyTypes | None = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
        session_resumption: bool = True,
    ) -> None:
        # As in httpx: loading httpcore costs more than all the rest, and not every program makes a transport.
        from pinset._connect import Connector  # noqa: PLC0415
        from pinset._network import OriginContext, PinnedBackend  # noqa: PLC0415
        from pinset._pool import PinnedPool  # noqa: PLC0415
        from pinset._socks import SocksBackend  # noqa: PLC0415

        self._pinner = as_pinner(pins)
        self._source = pins if isinstance(pins, PinSource) else None
        if not (http1 or http2):
            raise ContextError("http1=False and http2=False leave no protocol to speak; allow one")
        context = _origin_context(
            self._pinner, verify, cert, protocols=_protocols(http1=http1, http2=http2), trust_env=trust_env
        )
        sessions = SessionStore() if session_resumption else None

        def context_for(host: str, port: int) -> OriginContext:  # noqa: ARG001 - the TLS object knows the host
            return OriginContext(context, Enforcement(self._pinner, _httpx_error, sessions, port))

        backend, http_proxy = PinnedBackend(), None
        if isinstance(proxy, (str, httpx.URL)):
            proxy = httpx.Proxy(proxy)
        if proxy is not None and proxy.url.scheme in _SOCKS_SCHEMES:
            backend = SocksBackend(proxy.url.host, proxy.url.port or _SOCKS_PORT, proxy.raw_auth)
        elif proxy is not None:
            http_proxy = _http_proxy(proxy, trust_env=trust_env)
        self._pool = PinnedPool(  # type: ignore[assignment]  # of httpcore's pool, httpx uses no more than this has
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
            rereadable=(httpx.ByteStream,),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send *request*, over a connection that the policy in force accepts.

        Returns:
            The response; its ``extensions["pinset"]`` is the `Verdict` on the connection.

        Raises:
            RefusedError: As a class of this module, which is also an ``httpx.TransportError``.
            HostError: The host of the URL has no canonical form.
            httpx.TransportError: As ``httpx.AsyncHTTPTransport``.
        """
        self._check_request(request)
        try:
            response = await super().handle_async_request(request)
        except PinMismatchError as error:
            # The handshake was refused, so nothing of the request was sent and nothing of its body was read.
            if self._source is None or not await self._source.renew(error):
                raise
            self._check_request(request)
            response = await super().handle_async_request(request)
        stream = response.extensions.get("network_stream")
        if stream is not None and request.url.scheme in _TLS_SCHEMES:
            verdict = stream.get_extra_info("pinset")
            if verdict is None:
                await response.aclose()
                raise UnverifiedChainError(
                    "the response came over a connection without a verdict", host=request.url.host
                )
            response.extensions["pinset"] = verdict
        return response

    def _check_request(self, request: httpx.Request) -> None:
        """What can be said before anything is connected."""
        policy = self._pinner.policy
        try:
            host = canonical_host(request.url.raw_host.decode("ascii"))
        except _errors.HostError as error:
            raise HostError(str(error), text=error.text) from error
        listed = policy.find(host) is not None
        if request.url.scheme not in _TLS_SCHEMES and listed:
            raise CleartextError(
                f"{request.url.scheme}:// to {host}: the host is listed in the policy, and without TLS there is no key"
                f" to check; use {request.url.scheme.replace('http', 'https').replace('ws', 'wss')}://",
                host=host,
            )
        if not listed and policy.unlisted is Unlisted.DENY:
            verdict = self._pinner.check(host, ()).verdict
            raise UnlistedHostError(verdict.explain(), host=host, verdict=verdict)
        _check_server_name(request.extensions.get("sni_hostname"), host)


_SOCKS_SCHEMES = frozenset({"socks5", "socks5h"})
_SOCKS_PORT = 1080
_TLS_SCHEMES = frozenset({"https", "wss"})


def _check_server_name(name: object, host: str) -> None:
    # With another server name, OpenSSL verifies the certificate of that name and the pins of that name are looked up,
    # and the pool hands the connection to later requests for *host* (encode/httpcore keys it by the URL alone).
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


def _origin_context(
    pinner: Pinner,
    verify: ssl.SSLContext | None,
    cert: CertTypes | None,
    *,
    protocols: Sequence[str],
    trust_env: bool,
) -> ssl.SSLContext:
    if isinstance(verify, (bool, str)):
        raise ContextError(
            "verify is an ssl.SSLContext or nothing: pins add to the verification of certificates and never replace it;"
            " for other CAs give ssl.create_default_context(cafile=…)"
        )
    if verify is not None and cert is not None:
        raise ContextError("load the client certificate into the context: context.load_cert_chain(…)")
    if verify is not None:
        context = verify
    elif cert is not None:
        context = httpx.create_ssl_context(trust_env=trust_env)  # of its own: the client certificate is in it
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    else:
        context = shared_context(httpx.create_ssl_context, protocols, trust_env=trust_env)
    prepare_context(context, pinner)
    set_alpn(context, protocols)
    return context


def _protocols(*, http1: bool, http2: bool) -> Sequence[str]:
    return tuple(name for name, spoken in (("http/1.1", http1), ("h2", http2)) if spoken)


def _http_proxy(proxy: httpx.Proxy, *, trust_env: bool) -> HTTPProxy:
    import httpcore  # noqa: PLC0415 - see PinnedAsyncTransport

    from pinset._connect import HTTPProxy  # noqa: PLC0415 - likewise

    url, context = proxy.url, proxy.ssl_context
    if url.scheme == "https" and context is None:
        context = shared_context(httpx.create_ssl_context, ("http/1.1",), trust_env=trust_env)
    if url.scheme != "https" and context is not None:
        raise ContextError(
            "the proxy is spoken to without TLS, so its ssl_context has no use; use an https:// proxy URL"
        )
    port = url.port or (443 if url.scheme == "https" else 80)
    return HTTPProxy(
        httpcore.Origin(url.raw_scheme, url.raw_host, port), proxy.raw_auth, tuple(proxy.headers.raw), context
    )


class PinnedAsyncClient(httpx.AsyncClient):
    """
    An ``httpx.AsyncClient`` whose every road is pinned.

    It takes every keyword of ``httpx.AsyncClient``, with the same defaults, but two. ``verify`` is a context or
    nothing, and ``transport`` is refused: give a `PinnedAsyncTransport` to ``httpx.AsyncClient`` instead. ``proxy`` and
    the proxy environment variables work, and stay pinned; ``mounts`` takes pinned transports and None.

    Args:
        pins: A `PinSource`, a `Pinner` (shared, replaceable), a `Policy`, or pins by host pattern.
        verify: A context with the CAs to trust; see `PinnedAsyncTransport`.
        session_resumption: Whether TLS sessions are resumed; see `PinnedAsyncTransport`.

    Raises:
        PolicyError: *pins* makes no policy.
        ContextError: A keyword would open a road without pins.
    """

    def __init__(
        self,
        pins: PinSource | Pinner | Policy | Pins,
        *,
        auth: AuthTypes | None = None,
        params: QueryParamTypes | None = None,
        headers: HeaderTypes | None = None,
        cookies: CookieTypes | None = None,
        verify: ssl.SSLContext | None = None,
        cert: CertTypes | None = None,
        http1: bool = True,
        http2: bool = False,
        proxy: ProxyTypes | None = None,
        mounts: Mapping[str, httpx.AsyncBaseTransport | None] | None = None,
        timeout: TimeoutTypes = httpx.Timeout(5.0),
        follow_redirects: bool = False,
        limits: httpx.Limits = httpx.Limits(max_connections=100, max_keepalive_connections=20),
        max_redirects: int = 20,
        event_hooks: Mapping[str, list[Callable[..., Any]]] | None = None,
        base_url: httpx.URL | str = "",
        transport: None = None,
        trust_env: bool = True,
        default_encoding: str | Callable[[bytes], str] = "utf-8",
        session_resumption: bool = True,
    ) -> None:
        if transport is not None:
            raise ContextError(
                "transport= would replace the pinned transport; give it to httpx.AsyncClient(transport=…) instead"
            )
        for pattern, mounted in (mounts or {}).items():
            if mounted is not None and not isinstance(mounted, PinnedAsyncTransport):
                raise ContextError(
                    f"mounts[{pattern!r}] is a {type(mounted).__name__}, a road without pins;"
                    " mount a PinnedAsyncTransport, or use a separate httpx.AsyncClient for those hosts"
                )
        self._pinner = as_pinner(pins)
        self._source = pins if isinstance(pins, PinSource) else None
        self._session_resumption = session_resumption
        super().__init__(
            auth=auth,
            params=params,
            headers=headers,
            cookies=cookies,
            verify=_origin_context(
                self._pinner, verify, cert, protocols=_protocols(http1=http1, http2=http2), trust_env=trust_env
            ),
            http1=http1,
            http2=http2,
            proxy=proxy,
            mounts=mounts,
            timeout=timeout,
            follow_redirects=follow_redirects,
            limits=limits,
            max_redirects=max_redirects,
            event_hooks=event_hooks,
            base_url=base_url,
            trust_env=trust_env,
            default_encoding=default_encoding,
        )
        self._check_roads()

    @property
    def pinner(self) -> Pinner:
        """
        The `Pinner` whose policy is in force for this client.
        """
        return self._pinner

    # httpx makes its transports, also those for the proxy environment variables, through these two. They are private,
    # the same in every 0.28, and the route other clients take; `_check_roads` notices if that should change.
    def _init_transport(  # type: ignore[override]  # handed on whole
        self, **kwargs: Any
    ) -> httpx.AsyncBaseTransport:
        return self._pinned_transport(**kwargs)

    def _init_proxy_transport(  # type: ignore[override]  # handed on whole
        self, proxy: httpx.Proxy, **kwargs: Any
    ) -> httpx.AsyncBaseTransport:
        return self._pinned_transport(proxy=proxy, **kwargs)

    def _pinned_transport(self, **kwargs: Any) -> PinnedAsyncTransport:
        kwargs.pop("transport", None)
        return PinnedAsyncTransport(self._source or self._pinner, session_resumption=self._session_resumption, **kwargs)

    def _check_roads(self) -> None:
        for transport in (self._transport, *self._mounts.values()):
            if transport is not None and not isinstance(transport, PinnedAsyncTransport):
                raise ContextError(f"this httpx makes a {type(transport).__name__}, which is not pinned")


_ERRORS: dict[type[RefusedError], type[RefusedError]] = {
    _errors.PinMismatchError: PinMismatchError,
    _errors.UnverifiedChainError: UnverifiedChainError,
    _errors.UnlistedHostError: UnlistedHostError,
}


def _httpx_error(verdict: Verdict) -> Exception:
    return _ERRORS[error_class(verdict)](verdict.explain(), host=verdict.host, verdict=verdict)
