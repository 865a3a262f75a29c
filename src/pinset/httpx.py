"""
The transports and clients for ``httpx``, and their errors.

`PinnedAsyncClient` and `PinnedClient` are httpx's clients, of which every road is pinned; `PinnedAsyncTransport` and
`PinnedTransport` are for existing httpx code. A refusal is a class of this module, and also an ``httpx.TransportError``
with ``.request``.
"""

from __future__ import annotations

from pinset._client import PinnedAsyncClient
from pinset._httpx_errors import (
    CleartextError,
    HostError,
    PinMismatchError,
    ServerNameError,
    UnlistedHostError,
    UnverifiedChainError,
)
from pinset._sync._client import PinnedClient
from pinset._sync._transport import PinnedTransport
from pinset._transport import PinnedAsyncTransport

# The public interface is:
__all__ = [
    "CleartextError",
    "HostError",
    "PinMismatchError",
    "PinnedAsyncClient",
    "PinnedAsyncTransport",
    "PinnedClient",
    "PinnedTransport",
    "ServerNameError",
    "UnlistedHostError",
    "UnverifiedChainError",
]

# The classes are known by the name that users import, in messages, pickles and the documentation.
for _name in __all__:
    globals()[_name].__module__ = __name__
