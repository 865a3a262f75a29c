"""
What can be wrong with an update, by kind: a network that fails is not an attacker, and a forged signature is.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pinset._errors import PinsetError


class UpdateFault(StrEnum):
    """
    Why there was no update.
    """

    NETWORK = "network"
    """The server could not be reached, or answered something else than the file."""
    SLOW = "slow"
    """The deadline passed."""
    TOO_LARGE = "too-large"
    """A file is longer than it may be."""
    INVALID = "invalid"
    """A file is not what it should be, although nothing says that it was forged."""
    SIGNATURE = "signature"
    """A file lacks signatures, or is not the one that was signed."""
    ROLLBACK = "rollback"
    """A file is older than one that was accepted before."""
    EXPIRED = "expired"
    """A file is past its expiry: the repository is neglected, or somebody shows an old one."""
    WEAKER = "weaker"
    """The policy enforces less than the program's own."""
    STORAGE = "storage"
    """The cache cannot be written. A verified policy is in force all the same."""

    @property
    def is_security_event(self) -> bool:
        """
        Whether an attack looks like this.
        """
        return self in _ALARMING


_ALARMING = (UpdateFault.SIGNATURE, UpdateFault.ROLLBACK, UpdateFault.EXPIRED, UpdateFault.WEAKER)


class UpdateError(PinsetError):
    """
    There was no update. The policy that was in force still is.

    Attributes:
        fault: The kind of failure.
        expired_at: When the timestamp expired, if that is the failure; else None.
    """

    def __init__(self, message: str, *, fault: UpdateFault, expired_at: datetime | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.expired_at = expired_at

    def __reduce__(self) -> tuple[object, ...]:
        return (_update_error, (str(self), self.fault, self.expired_at))


def _update_error(message: str, fault: UpdateFault, expired_at: datetime | None) -> UpdateError:
    return UpdateError(message, fault=fault, expired_at=expired_at)
