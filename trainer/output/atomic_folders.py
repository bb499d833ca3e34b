"""Folders that are seen whole or not at all, whenever the process may be killed.

A folder is written as ``NAME.partial`` and renamed when it is complete. One that is replaced or removed is first
renamed to ``NAME.old``. A list of its files tells later whether it is still as it was written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from upsr_core.images.whole_files import file_sha256

PARTIAL, OLD = ".partial", ".old"
# As `sha256sum --check` reads it.
FILE_LIST = "files.sha256"
# Parts of the messages of PyTorch's file writer, which raises RuntimeError without the system's error.
_WRITER_ERRORS = ("inline_container", "PytorchStreamWriter", "No space left")


class NotWrittenError(RuntimeError):
    """The disk is full or the place forbidden; the message is one line."""


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """A context in which ``NAME.partial``, its value, is filled; the folder is removed if that fails.

    Raises:
        NotWrittenError: the folder cannot be written; what was there before is as it was.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        yield partial
    except (OSError, SafetensorError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not any(word in text for word in _WRITER_ERRORS):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        raise NotWrittenError(f"{folder}: cannot be written ({text[:200]}); free some space, then resume") from error


def list_files(folder: Path) -> None:
    """Note the folder's files in `FILE_LIST`."""
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in _names(folder)]
    (folder / FILE_LIST).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """The first fault of the folder by its list of files; None if there is no fault or no list."""
    try:
        lines = (folder / FILE_LIST).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{FILE_LIST} cannot be read: {error}"
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in _names(folder):
        if name not in digests:
            return f"{name} is not in its {FILE_LIST}"
    for name, digest in digests.items():
        try:
            if file_sha256(folder / name) != digest:
                return f"{name} is not as it was written"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def _names(folder: Path) -> list[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != FILE_LIST)


def partial_folder(folder: Path) -> Path:
    """The folder to write before it becomes ``folder``; remains of an earlier process are removed."""
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def replace_folder(new: Path, folder: Path) -> None:
    """Put the complete folder ``new`` in the place of ``folder``."""
    old = folder.with_name(folder.name + OLD)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete it; a half-deleted one is never seen under its name."""
    old = folder.with_name(folder.name + OLD)
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.rmtree(old)


def restore_replaced(parent: Path) -> None:
    """Give back its name to a folder whose replacement was cut off between the two renames.

    Several processes may call it at once.
    """
    for old in parent.glob("*" + OLD):
        folder = old.with_name(old.name.removesuffix(OLD))
        if (folder.with_name(folder.name + PARTIAL)).exists() and not folder.exists():
            try:
                old.rename(folder)
            except FileNotFoundError:  # another process was first
                continue


def remove_leftover_folders(parent: Path) -> None:
    """Delete folders that a killed process left half-written or half-deleted."""
    for pattern in ("*" + PARTIAL, "*" + OLD):
        for path in parent.glob(pattern):
            shutil.rmtree(path)
