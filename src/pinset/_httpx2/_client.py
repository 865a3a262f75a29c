# Made from pinset/_client.py by tools/twins.py; change that one.
"""
The pinned client: httpx2's own, of which every road is a pinned transport.

Proxies from arguments and environment, mounts and redirects go through such transports too. What would be a road without
pins is refused when the client is made.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx2

from pinset._enforcement import Trust
from pinset._errors import ContextError
from pinset._httpx2._httpx_rules import alpn_protocols, origin_context
from pinset._pinner import Pinner, Pins, as_pinner
from pinset._policy import Policy
from pinset._httpx2._transport import PinnedAsyncTransport

if TYPE_CHECKING:
    from httpx2._types import AuthTypes, CertTypes, CookieTypes, HeaderTypes, ProxyTypes, QueryParamTypes, TimeoutTypes


class PinnedAsyncClient(httpx2.AsyncClient):
    """
    An ``httpx2.AsyncClient`` whose every road is pinned.

    It takes every keyword of ``httpx2.AsyncClient``, with the same defaults, but two. ``verify`` is a context or
    nothing, and ``transport`` is refused: give a `PinnedAsyncTransport` to ``httpx2.AsyncClient`` instead. ``proxy`` and
    the proxy environment variables work, and stay pinned; ``mounts`` takes pinned transports and None.

    Args:
        pins: A `Pinner` (shared, replaceable), a `Policy`, or pins by host pattern.
        verify: A context with the CAs to trust; see `PinnedAsyncTransport`.
        trust: ``pins-only`` for servers with a certificate of their own making; see `PinnedAsyncTransport`.
        session_resumption: Whether TLS sessions are resumed; see `PinnedAsyncTransport`.

    Raises:
        PolicyError: *pins* makes no policy.
        ContextError: A keyword would open a road without pins.
    """

    def __init__(
        self,
        pins: Pinner | Policy | Pins,
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
        mounts: Mapping[str, httpx2.AsyncBaseTransport | None] | None = None,
        timeout: TimeoutTypes = httpx2.Timeout(5.0),
        follow_redirects: bool = False,
        limits: httpx2.Limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20),
        max_redirects: int = 20,
        event_hooks: Mapping[str, list[Callable[..., Any]]] | None = None,
        base_url: httpx2.URL | str = "",
        transport: None = None,
        trust_env: bool = True,
        default_encoding: str | Callable[[bytes], str] = "utf-8",
        trust: Trust = "ca-and-pins",
        session_resumption: bool = True,
    ) -> None:
        if transport is not None:
            raise ContextError(
                "transport= would replace the pinned transport; give it to httpx2.AsyncClient(transport=…) instead"
            )
        for pattern, mounted in (mounts or {}).items():
            if mounted is not None and not isinstance(mounted, PinnedAsyncTransport):
                raise ContextError(
                    f"mounts[{pattern!r}] is a {type(mounted).__name__}, a road without pins;"
                    " mount a PinnedAsyncTransport, or use a separate httpx2.AsyncClient for those hosts"
                )
        self._pinner = as_pinner(pins)
        self._trust: Trust = trust
        self._session_resumption = session_resumption
        super().__init__(
            auth=auth,
            params=params,
            headers=headers,
            cookies=cookies,
            verify=origin_context(
                self._pinner,
                verify,
                cert,
                protocols=alpn_protocols(http1=http1, http2=http2),
                trust_env=trust_env,
                trust=trust,
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

    # httpx2 makes its transports, also those for the proxy environment variables, through these two. They are private,
    # the same in every 0.28, and the route other clients take; `_check_roads` notices if that should change.
    def _init_transport(  # type: ignore[override]  # handed on whole
        self, **kwargs: Any
    ) -> httpx2.AsyncBaseTransport:
        return self._pinned_transport(**kwargs)

    def _init_proxy_transport(  # type: ignore[override]  # handed on whole
        self, proxy: httpx2.Proxy, **kwargs: Any
    ) -> httpx2.AsyncBaseTransport:
        return self._pinned_transport(proxy=proxy, **kwargs)

    def _pinned_transport(self, **kwargs: Any) -> PinnedAsyncTransport:
        kwargs.pop("transport", None)
        return PinnedAsyncTransport(
            self._pinner, trust=self._trust, session_resumption=self._session_resumption, **kwargs
        )

    def _check_roads(self) -> None:
        for transport in (self._transport, *self._mounts.values()):
            if transport is not None and not isinstance(transport, PinnedAsyncTransport):
                raise ContextError(f"this httpx2 makes a {type(transport).__name__}, which is not pinned")
