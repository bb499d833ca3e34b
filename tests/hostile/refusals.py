"""What every refusal has in common: one line, nothing written, little memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPARE_BYTES = 2**30


@dataclass(frozen=True)
class Row:
    """A line of a table of inputs.

    Attributes:
        id: what is tried.
        make: puts the files into the folder that it is given, which is the current one.
        arguments: of the command, or what else is called.
        expected: is in the one line that answers.
    """

    id: str
    make: Callable[[Path], Any]
    arguments: Any
    expected: str

    def __str__(self) -> str:
        return self.id


def nothing(folder: Path) -> None:
    """For rows that need no files."""


def contents(folder: Path) -> dict[str, tuple[int, str | bytes]]:
    """All that is in a folder, links and their targets as well."""
    found: dict[str, tuple[int, str | bytes]] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        what: str | bytes = b""
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = path.read_bytes()
        found[str(path.relative_to(folder))] = mode, what
    return found


@contextmanager
def little_memory(spare: int = SPARE_BYTES) -> Iterator[None]:
    """Whoever asks for more than ``spare`` bytes beyond what is in use gets an error."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that is full after so many bytes of a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
