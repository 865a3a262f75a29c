"""
What the streams of every event loop have in common: the interface, and the names of the errors.
"""

from __future__ import annotations

import ssl
from typing import NoReturn

import anyio
import httpcore

from pinset._tls_layer import OriginContext


class PinsetStream(httpcore.AsyncNetworkStream):
    """
    A connection as httpcore wants it, that can also be asked whether it may carry another request.
    """

    def accepts(self) -> bool:
        """
        Whether this connection may carry another request, under the policy in force now.
        """
        raise NotImplementedError

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext | OriginContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> PinsetStream:
        """
        Shake hands over this stream, and close it if that fails or is cancelled.

        Args:
            ssl_context: An `OriginContext` for a leg that is pinned, a plain context for one that is not.
            server_hostname: The name to verify.
            timeout: Seconds, or None to wait for ever.

        Raises:
            httpcore.ConnectError: The connection or TLS failed.
            httpcore.ConnectTimeout: *timeout* seconds have passed.
            RefusedError: The pins refuse the chain. Nothing of our flight has left.
        """
        raise NotImplementedError


def raise_as_connect_error(error: BaseException) -> NoReturn:
    """
    Raise *error*, met while connecting or shaking hands, as httpcore's class for it.
    """
    match error:
        case TimeoutError():  # before OSError, of which it is one
            raise httpcore.ConnectTimeout(str(error) or "no connection in the time allowed") from error
        case OSError() | UnicodeError():  # ssl.SSLError is an OSError; a host name may have no IDNA form
            raise httpcore.ConnectError(str(error)) from error
        case anyio.BrokenResourceError() | anyio.ClosedResourceError() | anyio.EndOfStream():
            raise httpcore.ConnectError(str(error)) from error
        case _:
            raise error
