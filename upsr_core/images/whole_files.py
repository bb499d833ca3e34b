"""Files that appear whole or not at all, even if the process that writes them is killed."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]

_PATTERN = ".upsr-*.tmp"
# A file is locked a moment after it is created.
_SECONDS_TO_LOCK = 60


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there; a file of that name is replaced at the very end.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.parent / f".upsr-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            _lock(file)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                # Under the lock, so that no other run takes it for a leftover.
                os.replace(temporary, path)
        if fcntl is None:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def remove_leftover_files(folder: Path) -> None:
    """Delete the half-written files of killed runs in a folder; files that a living run writes are left alone."""
    for leftover in folder.glob(_PATTERN):
        try:
            with open(leftover, "r+b") as file:
                status = os.fstat(file.fileno())
                fresh = status.st_size == 0 and time.time() - status.st_mtime < _SECONDS_TO_LOCK
                if fresh or not _lock(file):
                    continue
            leftover.unlink()
        except OSError:
            # Another user's, or gone already: the run can go on.
            continue


def _lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another process; or a file system without locks
        return False
    return True
