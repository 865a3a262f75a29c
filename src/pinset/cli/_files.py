"""
Files that the command line writes: new ones that replace nothing, and replacements that are whole or not there.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


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
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """
    Replace a file by another in one step; its permissions stay.

    Raises:
        OSError: It cannot be written; the old file is still there.
    """
    target = path.resolve()  # the file that a link points to, not the link
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        write_new(temporary, data, mode=0o600)
        temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
