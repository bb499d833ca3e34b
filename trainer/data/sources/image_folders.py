"""Photos in a folder tree, such as ImageNet's with a folder for each class."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from trainer.data.sources.base import IMAGE_EXTENSIONS, ImageSource, Photo, is_image, read_rgb
from trainer.data.sources.file_index import FileIndex, PackedStrings, kept_index, stamp

logger = logging.getLogger("trainer")


class FolderSource(ImageSource):
    """All image files in a folder and below it, links followed, in a fixed order: the files of a folder by name,
    then its subfolders.

    Args:
        root: the folder.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """

    def __init__(self, root: str | Path):
        self.title = self.root = os.path.abspath(root)
        if not os.path.isdir(self.root):
            raise ValueError(f"{root}: no such folder; give a folder of images")
        self.index = kept_index("folder", self.root, lambda: _list_folders(self.root))
        if not len(self):
            known = ", ".join(sorted(IMAGE_EXTENSIONS))
            raise ValueError(f"{root}: no images in it or below (looked for {known})")

    def __len__(self) -> int:
        return len(self.index.names)

    def name(self, index: int) -> str:
        """The file's path."""
        return self.index.path(index)

    def read(self, index: int) -> Photo:
        """The photo alone; see `ImageSource.read`."""
        return Photo(read_rgb(self.name(index)))


def _list_folders(root: str) -> FileIndex:
    folders: list[str] = []
    stamps: list[tuple[int, int]] = []
    files: list[str] = []
    counts: list[int] = []
    visited: set[str] = set()

    def warn(error: OSError) -> None:
        logger.warning("%s: left out, it cannot be listed (%s)", error.filename, error.strerror)

    # os.walk is built on os.scandir: it asks the file system for nothing but the lists.
    for folder, subfolders, names in os.walk(root, onerror=warn, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        images = sorted(name for name in names if is_image(name))
        folders.append(folder)
        stamps.append(stamp(folder))
        counts.append(len(images))
        files.extend(images)
    container = np.repeat(np.arange(len(folders), dtype=np.int32), counts)
    nothing = np.zeros((0, 2), np.int64)
    return FileIndex(
        PackedStrings.pack(folders), np.array(stamps, np.int64).reshape(-1, 2), container,
        PackedStrings.pack(files), nothing,
    )  # fmt: skip
