"""Photos from a folder tree: random training crops and a fixed validation set."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".jp2"})
# What Pillow raises for files that are broken in one way or another.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError
)  # fmt: skip

Pixels = npt.NDArray[np.uint8]


def list_images(root: str | Path) -> list[str]:
    """Paths of all image files below a folder, links followed, in a fixed order.

    Strings, since a million path objects would fill each worker's memory. ValueError where there is none.
    """
    if not os.path.isdir(root):
        raise ValueError(f"{root}: no such folder; give a folder of images")
    paths: list[str] = []
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        files = (name for name in sorted(names) if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS)
        paths.extend(os.path.join(folder, name) for name in files)
    if not paths:
        known = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise ValueError(f"{root}: no images in it or below (looked for {known})")
    return paths


def read_rgb(path: str | Path) -> Pixels:
    """Decodes a file to uint8 (H, W, 3): EXIF orientation applied, alpha dropped, 16 bits reduced to 8.

    Raises one of `UNREADABLE` for a file that is no image, truncated or absurdly large.
    """
    with Image.open(path) as opened:
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


def pad_to(pixels: Pixels, size: int) -> Pixels:
    """Reflects (H, W, 3) at the right and bottom until both sides are at least `size`."""
    bottom, right = max(0, size - pixels.shape[0]), max(0, size - pixels.shape[1])
    return np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="reflect") if bottom or right else pixels


def to_tensor(pixels: Pixels) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), dtype=np.float32, order="C") / 255)


class CropDataset(Dataset[dict[str, Any]]):
    """Random square crops of the photos below a folder, flipped and turned by quarter turns.

    An item is `{"hr": float32 (3, hr_size, hr_size) in [0, 1], "seed": int}`; "seed" is meant for
    `Degradation`. Both depend on (seed, epoch, index) alone: neither on workers nor on what was read before,
    so a resumed run sees the same crops. Across epochs every photo is used equally often.

    An unreadable file is replaced by the next one, with one warning; `num_skipped` counts such files.

    root: folder, searched recursively. samples_per_epoch: length; by default `repeats` times the number of
    files. cache: decode all photos at once and keep them as uint8 in memory. ValueError for an empty folder.
    """

    def __init__(
        self,
        root: str | Path,
        hr_size: int,
        *,
        seed: int = 0,
        repeats: int = 1,
        samples_per_epoch: int | None = None,
        cache: bool = False,
    ) -> None:
        if hr_size < 1:
            raise ValueError(f"hr_size must be positive, got {hr_size}")
        if repeats < 1 or (samples_per_epoch is not None and samples_per_epoch < 1):
            raise ValueError(f"repeats and samples_per_epoch must be positive, got {repeats} and {samples_per_epoch}")
        self.root = root
        self.paths = list_images(root)
        self.hr_size = hr_size
        self.seed = seed
        self.samples_per_epoch = samples_per_epoch or repeats * len(self.paths)
        # Sorted files often come class by class: mixed once, any stretch of them is a fair sample.
        self._order = np.random.default_rng([seed, 0]).permutation(len(self.paths))
        # In shared memory, since workers that outlive an epoch hold a copy of this object.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._unreadable = torch.zeros(len(self.paths), dtype=torch.bool).share_memory_()
        self._cache: list[Pixels | None] | None = None
        if cache:
            self._cache = [self._read(i) for i in range(len(self.paths))]
            if all(pixels is None for pixels in self._cache):
                raise ValueError(f"{root}: none of the {len(self.paths)} images can be read")

    def __len__(self) -> int:
        return self.samples_per_epoch

    @property
    def num_skipped(self) -> int:
        """Unreadable files met so far, by all workers together."""
        return int(self._unreadable.sum())

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the items read from now on."""
        self._epoch.fill_(epoch)

    def _read(self, file_index: int) -> Pixels | None:
        path = self.paths[file_index]
        try:
            return read_rgb(path)
        except UNREADABLE as error:
            if not self._unreadable[file_index]:
                self._unreadable[file_index] = True
                warnings.warn(f"{path}: skipped, it can not be read ({error})", stacklevel=2)
            return None

    def _photo(self, position: int) -> Pixels:
        for step in range(len(self.paths)):
            file_index = int(self._order[(position + step) % len(self.paths)])
            pixels = self._read(file_index) if self._cache is None else self._cache[file_index]
            if pixels is not None:
                return pixels
        raise ValueError(f"{self.root}: none of the {len(self.paths)} images can be read")

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.samples_per_epoch:
            raise IndexError(f"index {index} is outside 0..{self.samples_per_epoch - 1}")
        epoch = int(self._epoch)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, index]))
        pixels = pad_to(self._photo(epoch * self.samples_per_epoch + index), self.hr_size)
        top, left = (int(rng.integers(side - self.hr_size + 1)) for side in pixels.shape[:2])
        crop = pixels[top : top + self.hr_size, left : left + self.hr_size]
        crop = np.rot90(crop, int(rng.integers(4)))
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return {"hr": to_tensor(crop), "seed": int(rng.integers(2**62))}


class ValidationDataset(Dataset[dict[str, Any]]):
    """The same pixels every time: whole photos, or centre crops of them, with sides that `scale` divides.

    An item is `{"hr": float32 (3, H, W) in [0, 1], "seed": int, "name": file name}`; the seed is fixed by
    (seed, position in the folder). Unreadable files are left out with a warning and counted in `num_skipped`.

    crop_size: side of the centre crop (smaller photos are reflect-padded), None for whole photos, whose
    remainder by `scale` is cut off right and below. limit: at most so many photos, evenly spread over the
    sorted files. All crops are kept in memory as uint8. ValueError where no photo is left.
    """

    def __init__(
        self,
        root: str | Path,
        scale: int,
        *,
        crop_size: int | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        if crop_size is not None and (crop_size < scale or crop_size % scale):
            raise ValueError(f"crop_size must be a positive multiple of the scale {scale}, got {crop_size}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be positive, got {limit}")
        paths = list_images(root)
        if limit is not None and limit < len(paths):
            paths = [paths[i * len(paths) // limit] for i in range(limit)]
        self.scale = scale
        self.crop_size = crop_size
        self.seed = seed
        self.num_skipped = 0
        self._items: list[tuple[str, Pixels]] = []
        for path in paths:
            try:
                pixels = self._crop(read_rgb(path))
            except UNREADABLE as error:
                self.num_skipped += 1
                warnings.warn(f"{path}: skipped, it can not be read ({error})", stacklevel=2)
                continue
            self._items.append((os.path.basename(path), pixels))
        if not self._items:
            raise ValueError(f"{root}: none of the {len(paths)} images can be read")

    def _crop(self, pixels: Pixels) -> Pixels:
        if self.crop_size is None:
            height, width = (side - side % self.scale for side in pixels.shape[:2])
            if not height or not width:
                raise ValueError(f"smaller than the scale {self.scale}")
            return pixels[:height, :width]
        pixels = pad_to(pixels, self.crop_size)
        top, left = ((side - self.crop_size) // 2 for side in pixels.shape[:2])
        return pixels[top : top + self.crop_size, left : left + self.crop_size].copy()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, pixels = self._items[index]
        seed = int(np.random.default_rng([self.seed, index]).integers(2**62))
        return {"hr": to_tensor(pixels), "seed": seed, "name": name}
