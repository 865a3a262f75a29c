# Made from pinset/httpx.py by tools/twins.py; change that one.
"""
The transports and clients for ``httpx2``, and their errors.

`PinnedAsyncClient` and `PinnedClient` are httpx2's clients, of which every road is pinned; `PinnedAsyncTransport` and
`PinnedTransport` are for existing httpx2 code. A refusal is a class of this module, and also an ``httpx2.TransportError``
with ``.request``.
"""

from __future__ import annotations

from pinset._httpx2._client import PinnedAsyncClient
from pinset._httpx2._httpx_errors import (
    CleartextError,
    HostError,
    PinMismatchError,
    ServerNameError,
    UnlistedHostError,
    UnverifiedChainError,
)
from pinset._httpx2._sync._client import PinnedClient
from pinset._httpx2._sync._transport import PinnedTransport
from pinset._httpx2._transport import PinnedAsyncTransport

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
