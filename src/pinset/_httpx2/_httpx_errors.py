# Made from pinset/_httpx_errors.py by tools/twins.py; change that one.
"""
Refusals as httpx2 knows errors.

A refusal is an ``httpx2.TransportError``, so that httpx2 attaches the request and ``except httpx2.HTTPError`` sees it. It is
no ``ConnectError``: httpcore2 and retrying transports would try again, and a pin failure is final.
"""

from __future__ import annotations

import httpx2

from pinset import _errors
from pinset._enforcement import error_class
from pinset._errors import RefusedError
from pinset._verdict import Verdict


class PinMismatchError(_errors.PinMismatchError, httpx2.TransportError):
    """
    `pinset.PinMismatchError` from an httpx2 client; also an ``httpx2.TransportError`` with ``.request``.
    """


class UnverifiedChainError(_errors.UnverifiedChainError, httpx2.TransportError):
    """
    `pinset.UnverifiedChainError` from an httpx2 client; also an ``httpx2.TransportError`` with ``.request``.
    """


class UnlistedHostError(_errors.UnlistedHostError, httpx2.TransportError):
    """
    `pinset.UnlistedHostError` from an httpx2 client; also an ``httpx2.TransportError`` with ``.request``.
    """


class CleartextError(_errors.CleartextError, httpx2.UnsupportedProtocol):
    """
    `pinset.CleartextError` from an httpx2 client; also an ``httpx2.UnsupportedProtocol`` with ``.request``.
    """


class ServerNameError(_errors.ServerNameError, httpx2.TransportError):
    """
    `pinset.ServerNameError` from an httpx2 client; also an ``httpx2.TransportError`` with ``.request``.
    """


class HostError(_errors.HostError, httpx2.InvalidURL):
    """
    `pinset.HostError` for the host of a URL; also an ``httpx2.InvalidURL``.
    """


_ERRORS: dict[type[RefusedError], type[RefusedError]] = {
    _errors.PinMismatchError: PinMismatchError,
    _errors.UnverifiedChainError: UnverifiedChainError,
    _errors.UnlistedHostError: UnlistedHostError,
}


def httpx_error(verdict: Verdict) -> Exception:
    """
    The error of a refusing verdict.
    """
    return _ERRORS[error_class(verdict)](verdict.explain(), host=verdict.host, verdict=verdict)
