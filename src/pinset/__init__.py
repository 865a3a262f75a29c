"""
pinset: which keys a server may hold, checked inside the TLS handshake.

Most programs need `PinnedAsyncClient`, an ``httpx.AsyncClient`` in every other respect::

    pins = {"api.example.com": ["sha256/7HIp…J3Y=", "sha256/fwza…M1oE="]}   # in service, backup

    async with PinnedAsyncClient(pins) as client:
        response = await client.get("https://api.example.com/user/profile")
        response.extensions["pinset"]      # the Verdict: which pin matched, which chain, which rule

Existing httpx code takes a `PinnedAsyncTransport`; aiohttp, asyncio, urllib3 and the rest a context from
`pinned_ssl_context`. A `Pinner` holds a `Policy` that can be replaced while clients use it, and `load_policy` reads one
from a file. What is refused raises a `RefusedError`, of which `PinMismatchError` is the one to expect.
"""

import importlib
from typing import TYPE_CHECKING

from pinset._certificates import Certificate
from pinset._errors import (
    CertificateError,
    CleartextError,
    ContextError,
    Fault,
    HostError,
    InputError,
    PinError,
    PinMismatchError,
    PinsetError,
    PolicyError,
    RefusedError,
    ServerNameError,
    UnlistedHostError,
    UnverifiedChainError,
)
from pinset._evaluate import evaluate
from pinset._pinner import Observer, Pinner, load_policy
from pinset._pins import Pin, PinKind
from pinset._policy import Mode, OnExpiry, PinSet, Policy, Subdomains, Unlisted
from pinset._source import PinSource
from pinset._verdict import Decision, Outcome, Verdict
from pinset.httpx import PinnedAsyncClient, PinnedAsyncTransport

if TYPE_CHECKING:
    from pinset._contexts import pinned_ssl_context
    from pinset.httpx import PinnedClient, PinnedTransport

    __version__: str

# The public interface is:
__all__ = [
    "Certificate",
    "CertificateError",
    "CleartextError",
    "ContextError",
    "Decision",
    "Fault",
    "HostError",
    "InputError",
    "Mode",
    "Observer",
    "OnExpiry",
    "Outcome",
    "Pin",
    "PinError",
    "PinKind",
    "PinMismatchError",
    "PinSet",
    "PinSource",
    "PinnedAsyncClient",
    "PinnedAsyncTransport",
    "PinnedClient",
    "PinnedTransport",
    "Pinner",
    "PinsetError",
    "Policy",
    "PolicyError",
    "RefusedError",
    "ServerNameError",
    "Subdomains",
    "Unlisted",
    "UnlistedHostError",
    "UnverifiedChainError",
    "Verdict",
    "evaluate",
    "load_policy",
    "pinned_ssl_context",
]


# What costs a tenth of the import each, and only some programs use.
_LATER = {
    "PinnedClient": "pinset.httpx",
    "PinnedTransport": "pinset.httpx",
    "pinned_ssl_context": "pinset._contexts",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("pinset")
    if name not in _LATER:
        raise AttributeError(f"module 'pinset' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
