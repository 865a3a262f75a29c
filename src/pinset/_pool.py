"""
The connection pool: httpcore's, with the one guard that pinning needs behind proxies.

httpcore keeps the connection to a proxy as active when the handshake with the origin fails inside the tunnel, so each
refusal loses a place in the pool for good: whoever stands in the way could stop all traffic with ``max_connections``
bad certificates. `GuardedConnection` closes what failed before it ever served.
"""

from __future__ import annotations

import anyio
import httpcore


class GuardedConnection(httpcore.AsyncConnectionInterface):
    """
    A connection that closes itself when its first request fails.

    Args:
        connection: The one that does the work.
    """

    def __init__(self, connection: httpcore.AsyncConnectionInterface) -> None:
        self._connection = connection
        self._has_served = False

    def __repr__(self) -> str:
        return repr(self._connection)

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """See `httpcore.AsyncConnectionInterface`."""
        try:
            response = await self._connection.handle_async_request(request)
        except httpcore.ConnectionNotAvailable:
            raise  # the pool takes another; this one is busy with somebody else's request
        except BaseException:
            if not self._has_served:
                with anyio.CancelScope(shield=True):
                    await self._connection.aclose()
            raise
        self._has_served = True
        return response

    async def aclose(self) -> None:
        """See `httpcore.AsyncConnectionInterface`."""
        await self._connection.aclose()

    def info(self) -> str:
        """See `httpcore.AsyncConnectionInterface`."""
        return self._connection.info()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        """See `httpcore.AsyncConnectionInterface`."""
        return self._connection.can_handle_request(origin)

    def is_available(self) -> bool:
        """See `httpcore.AsyncConnectionInterface`."""
        return self._connection.is_available()

    def has_expired(self) -> bool:
        """See `httpcore.AsyncConnectionInterface`."""
        return self._connection.has_expired()

    def is_idle(self) -> bool:
        """See `httpcore.AsyncConnectionInterface`."""
        return self._connection.is_idle()

    def is_closed(self) -> bool:
        """See `httpcore.AsyncConnectionInterface`."""
        return self._connection.is_closed()


class HTTPProxyPool(httpcore.AsyncHTTPProxy):
    """
    Connections through an HTTP or HTTPS proxy; arguments as in ``httpcore.AsyncHTTPProxy``.
    """

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """See `httpcore.AsyncConnectionPool.create_connection`."""
        return GuardedConnection(super().create_connection(origin))


class SOCKSProxyPool(httpcore.AsyncSOCKSProxy):
    """
    Connections through a SOCKS5 proxy; arguments as in ``httpcore.AsyncSOCKSProxy``.
    """

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """See `httpcore.AsyncConnectionPool.create_connection`."""
        return GuardedConnection(super().create_connection(origin))
