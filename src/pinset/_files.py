"""
Files that are written whole or not at all: new ones that replace nothing, and replacements in one step.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp"
"""How the names of files end that a killed process may leave beside the one it was about to replace."""


def refuse_existing(path: Path) -> None:
    """
    Refuse, before work is done for it, to write a file that is there already.

    Raises:
        FileExistsError: It exists.
    """
    if path.exists():
        raise FileExistsError(None, "the file exists and is left as it is", str(path))


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """
    Write a file that does not exist yet.

    Args:
        path: Where.
        data: What.
        mode: Its permissions, in force before the first byte.

    Raises:
        OSError: It exists (`FileExistsError`), or cannot be written; then nothing is left of it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """
    Put *data* in the place of a file, in one step that survives a crash.

    Args:
        path: The file; of a link, the file that it points to.
        data: What it will hold.
        mode: Its permissions. None for those that it has, and then it has to exist.

    Raises:
        OSError: It cannot be written; what was there still is.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        write_new(temporary, data, mode=0o600 if mode is None else mode)
        if mode is None:
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    with suppress(OSError):  # not every file system can, and the file itself is safe
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
