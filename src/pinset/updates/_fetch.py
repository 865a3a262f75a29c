"""
`Fetcher`: files from the web server of a repository.

Rules of this module:

1. Whatever the server sends, no more than the limit is read, and no longer than the deadline of the whole update.
2. No redirect is followed and no encoding accepted: what is signed is the file itself, and it lies where it was asked for.
3. The connection is verified by CAs, and by pins only if some are given. It is never subject to the pins that it brings:
   those that are wrong could not be replaced any more.
4. The program's environment has no say: proxies and CAs are those of the arguments.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import httpx

from pinset._errors import InputError, RefusedError
from pinset._opened_sockets import Trace, opened_sockets_closed
from pinset._pinner import Pinner, Pins, as_pinner
from pinset._policy import Policy
from pinset.httpx import PinnedAsyncClient
from pinset.updates._errors import UpdateError, UpdateFault
from pinset.updates._trust import Want

_OK = 200
# Object stores answer 403 for what is not there, unless one may list the bucket.
_ABSENT = (403, 404)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "pinset"}


class Fetcher:
    """
    Fetches the files of one repository.

    Args:
        url: The URL below which ``metadata/`` and ``targets/`` lie.
        cafile: Trusted CA certificates, PEM; without it and *cadata* those that httpx trusts.
        cadata: PEM text or DER bytes.
        proxy: The URL of a proxy.
        control_pins: Pins for the server itself.
        read_timeout: Seconds without a byte after which the server is given up.

    Raises:
        InputError: *url* is not an ``https`` URL.
        PolicyError: *control_pins* make no policy.
    """

    def __init__(
        self,
        url: str,
        *,
        cafile: str | None = None,
        cadata: str | bytes | None = None,
        proxy: str | None = None,
        control_pins: Pinner | Policy | Pins | None = None,
        read_timeout: float = 5.0,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"{url!r} is not a URL: {error}") from error
        if parsed.scheme != "https" or not parsed.host:
            raise InputError(
                f"{url!r} is not an https URL; metadata is signed, but who asks for it is nobody's business"
            )
        if parsed.query or parsed.fragment:
            raise InputError(f"{url!r} has a query or a fragment, and is to be a directory")
        self.url = url.rstrip("/") + "/"
        self._trust = (cafile, cadata)
        self._proxy, self._timeout = proxy, read_timeout
        self._control_pins = None if control_pins is None else as_pinner(control_pins)
        self._context: ssl.SSLContext | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[httpx.AsyncClient]:
        """
        A client for the files of one update, which share a connection.

        Raises:
            UpdateError: The CAs cannot be read.
        """
        options: dict[str, Any] = {
            "verify": self._make_context(),
            "proxy": self._proxy,
            "trust_env": False,
            "follow_redirects": False,
            "timeout": self._timeout,
            "headers": _HEADERS,
        }
        client = (
            httpx.AsyncClient(**options)
            if self._control_pins is None
            else PinnedAsyncClient(self._control_pins, **options)
        )
        async with opened_sockets_closed() as trace, client:
            client.event_hooks = {"request": [_traced_by(trace)]}
            yield client

    async def fetch(self, client: httpx.AsyncClient, want: Want) -> bytes | None:
        """
        One file.

        Returns:
            Its bytes; None if it is optional and the server says that there is none.

        Raises:
            UpdateError: The server cannot be reached, or sends something else.
        """
        try:
            async with client.stream("GET", self.url + want.path) as response:
                if want.optional and response.status_code in _ABSENT:
                    return None
                _check(response, want)
                return await _read(response, want)
        except httpx.TimeoutException as error:
            reason = f"the server of {want.path} is too slow: {type(error).__name__}"
            raise UpdateError(reason, fault=UpdateFault.SLOW) from error
        except (httpx.HTTPError, RefusedError) as error:
            reason = f"{want.path} cannot be fetched: {type(error).__name__}: {error}"
            raise UpdateError(reason, fault=UpdateFault.NETWORK) from error

    async def ask(self, client: httpx.AsyncClient, path: str) -> httpx.Response:
        """
        Status and headers of a file, without the file.

        Raises:
            UpdateError: The server cannot be reached.
        """
        try:
            async with client.stream("GET", self.url + path) as response:
                return response
        except httpx.HTTPError as error:
            reason = f"{path} cannot be fetched: {type(error).__name__}: {error}"
            raise UpdateError(reason, fault=UpdateFault.NETWORK) from error

    def _make_context(self) -> ssl.SSLContext:
        if self._context is None:
            cafile, cadata = self._trust
            try:
                self._context = (
                    httpx.create_ssl_context(trust_env=False)
                    if cafile is None and cadata is None
                    else ssl.create_default_context(cafile=cafile, cadata=cadata)
                )
            except OSError as error:
                reason = f"the CAs of the control plane cannot be read: {error}"
                raise UpdateError(reason, fault=UpdateFault.NETWORK) from error
        return self._context


def _traced_by(trace: Trace) -> Callable[[httpx.Request], Awaitable[None]]:
    async def prepare(request: httpx.Request) -> None:
        request.extensions = {**request.extensions, "trace": trace}

    return prepare


def _check(response: httpx.Response, want: Want) -> None:
    status = response.status_code
    if status != _OK:
        where = f" to {response.headers.get('Location', 'nowhere')!r}, and redirects are not followed"
        reason = f"the server answered {status} for {want.path}{where if response.is_redirect else ''}"
        raise UpdateError(reason, fault=UpdateFault.NETWORK)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        reason = f"{want.path} came with Content-Encoding {encoding!r}, and the file as it is was asked for"
        raise UpdateError(reason, fault=UpdateFault.NETWORK)


async def _read(response: httpx.Response, want: Want) -> bytes:
    data = b""
    # Without a size: httpx would wait until it has that many bytes, and a trickle would go unnoticed.
    body = cast("AsyncGenerator[bytes]", response.aiter_raw())
    async with aclosing(body) as parts:  # a generator that is left in the middle would be closed some time later
        async for part in parts:
            data += part
            if len(data) > want.limit:
                raise UpdateError(f"{want.path} has more than {want.limit} bytes", fault=UpdateFault.TOO_LARGE)
    return data
