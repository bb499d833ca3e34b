"""Folders that are seen whole or not at all, whenever the process may be killed.

A folder is written as ``NAME.partial`` and renamed when it is complete. One that is replaced or removed is first
renamed to ``NAME.old``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PARTIAL, OLD = ".partial", ".old"


def partial_folder(folder: Path) -> Path:
    """Where to write what shall become ``folder``; what an earlier process left there is removed."""
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


def remove_leftovers(parent: Path) -> None:
    """Delete what a killed process left half-written or half-deleted."""
    for pattern in ("*" + PARTIAL, "*" + OLD):
        for path in parent.glob(pattern):
            shutil.rmtree(path)
