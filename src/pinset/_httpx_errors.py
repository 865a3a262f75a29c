"""
Refusals as httpx knows errors.

A refusal is an ``httpx.TransportError``, so that httpx attaches the request and ``except httpx.HTTPError`` sees it. It is
no ``ConnectError``: httpcore and retrying transports would try again, and a pin failure is final.
"""

from __future__ import annotations

import httpx

from pinset import _errors
from pinset._enforcement import error_class
from pinset._errors import RefusedError
from pinset._verdict import Verdict


class PinMismatchError(_errors.PinMismatchError, httpx.TransportError):
    """
    `pinset.PinMismatchError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class UnverifiedChainError(_errors.UnverifiedChainError, httpx.TransportError):
    """
    `pinset.UnverifiedChainError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class UnlistedHostError(_errors.UnlistedHostError, httpx.TransportError):
    """
    `pinset.UnlistedHostError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class CleartextError(_errors.CleartextError, httpx.UnsupportedProtocol):
    """
    `pinset.CleartextError` from an httpx client; also an ``httpx.UnsupportedProtocol`` with ``.request``.
    """


class ServerNameError(_errors.ServerNameError, httpx.TransportError):
    """
    `pinset.ServerNameError` from an httpx client; also an ``httpx.TransportError`` with ``.request``.
    """


class HostError(_errors.HostError, httpx.InvalidURL):
    """
    `pinset.HostError` for the host of a URL; also an ``httpx.InvalidURL``.
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
