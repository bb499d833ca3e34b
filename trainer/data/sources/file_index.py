"""Lists of a million files: small in memory, kept on disk, and made anew as soon as they are out of date."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

logger = logging.getLogger("trainer")

# Fewer files are listed faster than anyone could notice, and a list that is not kept cannot be out of date.
WORTH_KEEPING = 10_000
# File systems round times: a change shortly after another one may leave the time stamp as it is.
CLOCK_TICK_NS = 2_000_000_000
VERSION = 1


class PackedStrings:
    """Strings in one array. A list of a million would cost each process over 100 MB: reading it counts
    references, which unshares the memory of worker processes.

    Args:
        data: uint8, the encoded strings one after the other.
        ends: int64, where each ends.
    """

    def __init__(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]):
        self.data, self.ends = data, ends

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        """From single strings; file names that are no valid text are kept as they are."""
        encoded = [os.fsencode(string) for string in strings]
        ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.data[start : self.ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class FileIndex:
    """Image files in their containers, which are folders or tar files.

    Attributes:
        containers: absolute paths, C of them.
        stamps: int64 (C,2), modification time in ns and size of each container before it was listed.
        container: int32 (N,), which one each image is in.
        names: N names; in a folder the file's, in a tar file the member's.
        spans: int64 (N,2), offset and size in bytes of each member of a tar file; (0, 2) for folders.
    """

    containers: PackedStrings
    stamps: npt.NDArray[np.int64]
    container: npt.NDArray[np.int32]
    names: PackedStrings
    spans: npt.NDArray[np.int64]

    def path(self, index: int) -> str:
        """Place of an image: its container and its name."""
        return os.path.join(self.containers[self.container[index]], self.names[index])

    def is_current(self) -> bool:
        """Whether no container has changed since it was listed."""
        try:
            return all(stamp(path) == tuple(known) for path, known in zip(self.containers, self.stamps, strict=True))
        except OSError:
            return False


def stamp(path: str) -> tuple[int, int]:
    """A value that changes when a file is put into a folder or taken out of it, or when a file is written."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def index_folder() -> Path:
    """Folder of the indices: ``upsr/index`` in the user's cache folder, which ``XDG_CACHE_HOME`` can move."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "upsr" / "index"


def kept_index(
    kind: str, root: str, make: Callable[[], FileIndex], is_current: Callable[[FileIndex], bool] = FileIndex.is_current
) -> FileIndex:
    """The index of ``root`` from disk while it is current, else a new one, which is then kept if it is large.

    Processes that start together may all make one: whichever is written last stays, and they are all alike.

    Args:
        kind, root: what name the index; ``root`` is absolute.
        make: lists everything.
        is_current: whether a kept index still holds.
    """
    file = index_folder() / f"{kind}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:24]}.npz"
    index = _load(file)
    if index is not None and is_current(index):
        logger.info("%s: %d images, listed in %s (delete that file to list them anew)", root, len(index.names), file)
        return index
    if index is not None:
        logger.info("%s: has changed since it was listed in %s; listing it anew", root, file)
    start = time.time_ns()
    index = make()
    if len(index.names) >= WORTH_KEEPING:
        seconds = (time.time_ns() - start) / 1e9
        # A container that has changed since may have done so after it was listed.
        settled = index.stamps[:, 0].max() < start - CLOCK_TICK_NS
        kept = _keep(index, file) if settled else "not kept, since it has just been changed"
        logger.info("%s: %d images, listed in %.1f s; %s", root, len(index.names), seconds, kept)
    return index


def _load(file: Path) -> FileIndex | None:
    try:
        with np.load(file) as arrays:
            if int(arrays["version"]) != VERSION:
                return None
            return FileIndex(
                PackedStrings(arrays["containers"], arrays["containers_ends"]),
                arrays["stamps"],
                arrays["container"],
                PackedStrings(arrays["names"], arrays["names_ends"]),
                arrays["spans"],
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: cannot be used, listing the images anew (%s)", file, error)
        return None


def _keep(index: FileIndex, file: Path) -> str:
    """Write the index, whole or not at all; returns a remark for the log."""
    arrays = {"version": np.array(VERSION)}
    for field in fields(index):
        value = getattr(index, field.name)
        if isinstance(value, PackedStrings):
            arrays[field.name], arrays[f"{field.name}_ends"] = value.data, value.ends
        else:
            arrays[field.name] = value
    partial = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Other machines may share this folder: no name that they could choose, too.
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.stem, suffix=".partial", delete=False) as stream:
            partial = Path(stream.name)
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        partial.replace(file)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        return f"not kept: {error}; set XDG_CACHE_HOME to a folder that can be written"
    return f"kept in {file}"
