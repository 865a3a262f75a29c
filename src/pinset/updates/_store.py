"""
The cache: the last update that verified as a whole, in one file.

Rules of this module:

1. The file is replaced in one step or not at all: written beside it, flushed to the disk, renamed, and the directory
   flushed too. A process that is killed in between leaves the old one, and a temporary file that the next one removes.
2. What is read is believed no more than what comes from a network: it is verified again, from the embedded root on.
3. Processes that share a cache take turns. The lock belongs to the open file, so it ends with its process.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pinset._files import TEMPORARY, replace_file
from pinset.updates._errors import UpdateError, UpdateFault

_FILE, _LOCK = "good.json", ".lock"
_FORMAT = 1
_LIMIT = 32 * 1024 * 1024
_TURN = 0.05  # seconds

_logger = logging.getLogger("pinset.updates")


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What the cache holds.

    Attributes:
        files: `Verified.files`.
        checked: When the repository was last found to have no more than these.
        seen: The latest instant that the clock is known to have shown; it may have been set back since.
    """

    files: Mapping[str, bytes] = field(repr=False)
    checked: datetime
    seen: datetime


class Store:
    """
    The cache in a directory, or in memory.

    Args:
        directory: Where; made if need be, for this user alone. None for memory, which forgets with the process.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: Kept | None = None

    def read(self) -> Kept | None:
        """
        What was kept, unverified; None if there is nothing, or nothing that can be read.
        """
        if self._directory is None:
            return self._memory
        path = self._directory / _FILE
        try:
            with path.open("rb") as file:
                return _from_json(file.read(_LIMIT))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            _logger.warning("%s cannot be read and is ignored (%s: %s)", path, type(error).__name__, error)
            return None

    def write(self, kept: Kept) -> None:
        """
        Replace what is kept.

        Raises:
            UpdateError: It cannot be written (`UpdateFault.STORAGE`); what was kept still is.
        """
        if self._directory is None:
            self._memory = kept
            return
        path = self._directory / _FILE
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, _to_json(kept), mode=0o600)
        except OSError as error:
            raise UpdateError(f"{path} cannot be written: {error}", fault=UpdateFault.STORAGE) from error

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Wait for the turn of this process, and keep it while the block lasts.

        Where the cache cannot be written, nobody waits.
        """
        descriptor = self._open_lock()
        if descriptor is None:
            yield
            return
        try:
            while not _lock(descriptor):  # noqa: ASYNC110 - the one who holds it is another process
                await asyncio.sleep(_TURN)
            self._tidy()
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int | None:
        if self._directory is None:
            return None
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return None

    def _tidy(self) -> None:
        """Remove what killed processes have left; nobody else writes now."""
        assert self._directory is not None  # there is a lock
        for path in self._directory.glob(f".{_FILE}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks; replacing the file is safe without, and a look too many no harm
        return True
    return True


def _to_json(kept: Kept) -> bytes:
    # Metadata and policies are JSON themselves, so they are text, and a person can read the cache.
    files = {path: data.decode("utf-8") for path, data in kept.files.items()}
    times = {"checked": kept.checked.isoformat(), "seen": kept.seen.isoformat()}
    return json.dumps({"format": _FORMAT, **times, "files": files}, indent=1).encode("ascii")


def _from_json(data: bytes) -> Kept:
    document = json.loads(data)
    if document["format"] != _FORMAT:
        raise ValueError(f"format {document['format']!r}, and {_FORMAT} was expected")
    files = {str(path): str(text).encode("utf-8") for path, text in dict(document["files"]).items()}
    checked, seen = (datetime.fromisoformat(document[name]) for name in ("checked", "seen"))
    if checked.tzinfo is None or seen.tzinfo is None:
        raise ValueError("an instant has no offset")
    return Kept(files, checked, seen)
