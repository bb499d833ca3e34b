"""The interface of all sources, and the decoding of one image."""

from __future__ import annotations

import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Hashable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from upsr_core.messages import one_line

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".jp2"})
# Pillow's exceptions for broken files.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError
)  # fmt: skip
# More unreadable images in a row are no accident.
MAX_TRIES = 100

Pixels = npt.NDArray[np.uint8]


class Photo(NamedTuple):
    """Pixels of an image, uint8 (H,W,3), and of its LR version where the source has one."""

    hr: Pixels
    lr: Pixels | None = None


class ImageSource(ABC):
    """Images that are numbered, so that any order of them can be read, and read again after a resume.

    Attributes:
        title: what messages call the source.
        paired: whether each photo comes with its own LR version.
    """

    title: str
    paired = False

    @abstractmethod
    def __len__(self) -> int:
        """The number of images, readable or not; above 0."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Place of an image, for messages; its last part (after a slash) is its own name."""

    def original(self, index: int) -> Hashable:
        """What an image and its repetitions have in common."""
        return index

    @abstractmethod
    def read(self, index: int) -> Photo:
        """Decode an image.

        Raises:
            One of `UNREADABLE`.
        """

    def check(self) -> None:
        """Look for faults that would stop a training later.

        Raises:
            ValueError: one line; here, that none of up to `MAX_TRIES` images from all over the source can be read.
        """
        tries = min(len(self), MAX_TRIES)
        first = ""
        for i in range(tries):
            index = i * len(self) // tries
            try:
                self.read(index)
                return
            except UNREADABLE as error:
                first = first or f"{self.name(index)}: {one_line(error)}"
        raise ValueError(f"{self.title}: none of the {tries} images that were tried can be read ({first})")


def is_image(name: str) -> bool:
    """Whether a file's extension is one of `IMAGE_EXTENSIONS`."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def read_rgb(file: str | Path | IO[bytes]) -> Pixels:
    """Decode a file to uint8 (H,W,3): EXIF orientation applied, alpha dropped, 16 bits reduced to 8.

    Raises:
        One of `UNREADABLE`: the file is no image, truncated or absurdly large.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise ValueError("floating-point pixels have no defined white; save it with 8 or 16 bits")
        if image.mode.startswith("I;16") or image.mode == "I":
            # Pillow's own conversion would clip 16-bit grays at 255 instead of scaling them.
            gray = (np.asarray(image, dtype=np.int64).clip(0, 65535) + 128) // 257
            return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB"))
