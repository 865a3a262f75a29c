"""
The ways to use pinset: three event loops and threads, with httpx and httpx2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import httpx
import httpx2
from leftovers import LOOPS

import pinset.httpx
import pinset.httpx2


class Blocking:
    """
    A blocking client for tests that are written for asynchronous ones. The loop stands still while it works.
    """

    def __init__(self, client):
        self._client = client

    async def __aenter__(self):
        self._client.__enter__()
        return self

    async def __aexit__(self, *exc_info):
        self._client.__exit__(*exc_info)

    async def get(self, *args, **kwargs):
        return self._client.get(*args, **kwargs)


@dataclass(frozen=True)
class Way:
    """
    One of them.

    Attributes:
        run: Runs an async function.
        library: httpx or httpx2.
        pinned: Makes a pinned client.
        stock: Makes one of the library's own.
    """

    run: Callable[..., object]
    library: ModuleType
    pinned: Callable[..., object]
    stock: Callable[..., object]

    def options(self, options):
        """*options* with a proxy of this library in place of one of httpx."""
        proxy = options.get("proxy")
        if not isinstance(proxy, httpx.Proxy):
            return options
        url = str(proxy.url.copy_with(username=None, password=None))
        auth = None if proxy.auth is None else tuple(proxy.auth)
        return options | {"proxy": self.library.Proxy(url, ssl_context=proxy.ssl_context, auth=auth)}


def _blocking(make):
    return lambda *args, **kwargs: Blocking(make(*args, **kwargs))


WAYS = {
    **{name: Way(run, httpx, pinset.httpx.PinnedAsyncClient, httpx.AsyncClient) for name, run in LOOPS.items()},
    "threads": Way(LOOPS["asyncio"], httpx, _blocking(pinset.httpx.PinnedClient), _blocking(httpx.Client)),
    **{
        f"httpx2-{name}": Way(run, httpx2, pinset.httpx2.PinnedAsyncClient, httpx2.AsyncClient)
        for name, run in LOOPS.items()
    },
    "httpx2-threads": Way(LOOPS["asyncio"], httpx2, _blocking(pinset.httpx2.PinnedClient), _blocking(httpx2.Client)),
}
