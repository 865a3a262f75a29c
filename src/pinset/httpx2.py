# Made from pinset/httpx.py by tools/twins.py; change that one.
"""
The transports and clients for ``httpx2``, and their errors.

`PinnedAsyncClient` and `PinnedClient` are httpx2's clients, of which every road is pinned; `PinnedAsyncTransport` and
`PinnedTransport` are for existing httpx2 code. A refusal is a class of this module, and also an ``httpx2.TransportError``
with ``.request``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pinset._httpx2._client import PinnedAsyncClient
from pinset._httpx2._httpx_errors import (
    CleartextError,
    HostError,
    PinMismatchError,
    ServerNameError,
    UnlistedHostError,
    UnverifiedChainError,
)
from pinset._httpx2._transport import PinnedAsyncTransport

if TYPE_CHECKING:
    from pinset._httpx2._sync._client import PinnedClient
    from pinset._httpx2._sync._transport import PinnedTransport

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

# Programs are blocking or asynchronous, and seldom both.
_LATER = {"PinnedClient": "pinset._httpx2._sync._client", "PinnedTransport": "pinset._httpx2._sync._transport"}

# The classes are known by the name that users import, in messages, pickles and the documentation.
for _name in set(__all__) - set(_LATER):
    globals()[_name].__module__ = __name__


def __getattr__(name: str) -> type:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: type = getattr(import_module(_LATER[name]), name)
    found.__module__ = __name__
    globals()[name] = found
    return found
