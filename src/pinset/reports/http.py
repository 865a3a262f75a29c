"""
`HTTPReports`: reports as JSON in a POST request, as user agents sent those of RFC 7469.

Rules of this module:

1. The client is separate from the program's: CA validation against its own context, no pin policy, no cookies. Pins that
   broke must not keep the news of it from leaving.
2. Only ``https``, only verified, and no redirect is followed. A connection that fails validation is given up at once
   (RFC 7469 section 3): whoever stands in the way learns nothing and is not asked again soon.
3. What the receiver answers is not read, beyond its status and ``Retry-After``.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pinset._errors import HostError, InputError
from pinset._hosts import canonical_host
from pinset.reports._aside import Aside
from pinset.reports._report import PinReport
from pinset.reports._sink import ReportSink, SinkError, TryAgainError

if TYPE_CHECKING:
    import httpx

_TOO_MANY_REQUESTS = 429
_SUCCESS = range(200, 300)
_SERVER_ERRORS = range(500, 600)


class HTTPReports(ReportSink):
    """
    Sends each violation to a URL.

    Answers of 429 and 5xx, and connections that fail, are tried again, not before ``Retry-After`` if the receiver says
    so. Every other answer but 2xx is final.

    Args:
        url: ``https://`` and a host. It should be a host that no rule covers: one that is intercepted cannot be told of
            by itself.
        headers: Sent along, for a receiver that wants a token.
        cafile: Trusted CA certificates, PEM; without it and *cadata* those that httpx trusts.
        cadata: PEM text or DER bytes.
        proxy: The URL of a proxy.
        trust_env: Whether the proxy environment variables and ``SSL_CERT_FILE`` apply, as in httpx.
        wants_matches: Whether connections are also reported whose pins matched, under a rule that is not enforced or
            has expired.
        name: Names the sink in counters and logs.

    Raises:
        InputError: *url* is not an ``https`` URL.
        OSError: *cafile* cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        cafile: str | None = None,
        cadata: str | bytes | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        wants_matches: bool = False,
        name: str = "http",
    ) -> None:
        import httpx  # noqa: PLC0415 - a program that reports over HTTP has it loaded

        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"reports cannot be sent to {url!r}: {error}") from error
        if parsed.scheme != "https":
            raise InputError(f"{url!r} is not an https URL; reports are never sent in the clear")
        try:
            self._host = canonical_host(parsed.host)
        except HostError as error:
            raise InputError(f"reports cannot be sent to {url!r}: {error}") from error
        self._url, self._proxy, self._trust_env = parsed, proxy, trust_env
        self._headers = {"Content-Type": "application/json", "User-Agent": "pinset", **(headers or {})}
        self._context: ssl.SSLContext | None = None
        if cafile is not None or cadata is not None:
            self._context = ssl.create_default_context(cafile=cafile, cadata=cadata)
        self._aside = Aside(f"pinset-{name}")
        self.wants_matches = wants_matches
        self.name = name

    @property
    def host(self) -> str:
        """
        The host that reports are sent to.
        """
        return self._host

    async def deliver(self, report: PinReport) -> None:
        """
        Send one report, on a connection of its own: the next is a day away.

        Raises:
            TryAgainError: No answer, or one that asks for patience.
            SinkError: The receiver cannot be trusted, or does not want it.
        """
        import httpx  # noqa: PLC0415 - as above

        if self._context is None:
            # Reading the trust store takes milliseconds, in which the other sinks would have to wait.
            self._context = await self._aside.run(lambda: httpx.create_ssl_context(trust_env=self._trust_env))
        try:
            await self._post(report.to_json(), self._context)
        except httpx.TransportError as error:
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
                raise SinkError("tls", f"{self._host} does not prove who it is: {error}") from error
            raise TryAgainError("transport", f"{type(error).__name__}: {error}") from error

    async def _post(self, body: str, context: ssl.SSLContext) -> None:
        import httpx  # noqa: PLC0415 - as above

        from pinset._opened_sockets import opened_sockets_closed  # noqa: PLC0415 - it loads anyio

        async with (
            opened_sockets_closed() as trace,
            httpx.AsyncClient(
                verify=context,
                proxy=self._proxy,
                trust_env=self._trust_env,
                follow_redirects=False,
                timeout=None,  # noqa: S113 - the reporter limits the whole attempt
            ) as client,
            client.stream(
                "POST", self._url, content=body, headers=self._headers, extensions={"trace": trace}
            ) as response,
        ):
            _check(response)


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status in _SUCCESS:
        return
    if status == _TOO_MANY_REQUESTS or status in _SERVER_ERRORS:
        after = _seconds(response.headers.get("Retry-After", ""))
        raise TryAgainError("server", f"the receiver answered {status}", after=after)
    raise SinkError("rejected", f"the receiver answered {status}")


def _seconds(retry_after: str) -> float | None:
    """``Retry-After`` (RFC 9110 section 10.2.3): a number of seconds, or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if date.tzinfo is None:  # "-0000", in UTC with nothing known of the place
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
