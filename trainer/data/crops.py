"""Random training crops and fixed validation crops, from any source of images."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from trainer.data.lettering import Lettering
from trainer.data.sources.base import MAX_TRIES, UNREADABLE, ImageSource, Photo, Pixels
from trainer.typed_yaml import ConfigError
from upsr_core.messages import one_line

logger = logging.getLogger("trainer")


def pad_to(photo: Photo, hr_size: int, scale: int) -> Photo:
    """Continue a photo at the right and the bottom until its sides are at least ``hr_size``.

    A photo on its own is reflected. A pair is mirrored with the last row repeated: at the pixels' edges, which LR and
    HR share, and not at their centres, which they do not.

    Args:
        photo: with sides of any size.
        hr_size: a multiple of ``scale``.
        scale: super-resolution factor.
    """
    if photo.lr is None:
        return Photo(_padded(photo.hr, hr_size, "reflect"))
    return Photo(_padded(photo.hr, hr_size, "symmetric"), _padded(photo.lr, hr_size // scale, "symmetric"))


def _padded(pixels: Pixels, size: int, mode: Any) -> Pixels:
    bottom, right = max(0, size - pixels.shape[0]), max(0, size - pixels.shape[1])
    return np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode=mode) if bottom or right else pixels


def random_shrunk_crop(photo: Photo, hr_size: int, scale: int, shrink: float, rng: np.random.Generator) -> Photo:
    """A random crop of a photo without LR, which is first reduced by a random factor.

    Args:
        photo: with sides of any size; one that is too small for the factor drawn is reduced less, or not at all.
        hr_size: side of the crop.
        scale: super-resolution factor.
        shrink: smallest factor, in (0,1]; the largest is 1.
        rng: decides factor, place, flip and turn.
    """
    side = round(hr_size / rng.uniform(shrink, 1))
    side = max(hr_size, min(side, *photo.hr.shape[:2]))
    crop = random_crop(photo, side, scale, rng)
    if side == hr_size:
        return crop
    shrunk = cv2.resize(np.ascontiguousarray(crop.hr), (hr_size, hr_size), interpolation=cv2.INTER_AREA)
    return Photo(np.asarray(shrunk, dtype=np.uint8))


def random_crop(photo: Photo, hr_size: int, scale: int, rng: np.random.Generator) -> Photo:
    """A square of side ``hr_size``, flipped and turned by quarter turns; of a pair, the same square of both."""
    photo = pad_to(photo, hr_size, scale)
    unit = 1 if photo.lr is None else scale
    top, left = (int(rng.integers((side - hr_size) // unit + 1)) * unit for side in photo.hr.shape[:2])
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)

    def turned(pixels: Pixels) -> Pixels:
        pixels = np.rot90(pixels, turns)
        return pixels[:, ::-1] if flip else pixels

    cropped = _cropped(photo, top, left, hr_size, scale)
    return Photo(turned(cropped.hr), None if cropped.lr is None else turned(cropped.lr))


def _cropped(photo: Photo, top: int, left: int, side: int, scale: int) -> Photo:
    """A square of a photo; place and side are in HR pixels, for a pair multiples of ``scale``."""

    def crop(pixels: Pixels, unit: int) -> Pixels:
        rows, columns = (slice(start // unit, (start + side) // unit) for start in (top, left))
        return pixels[rows, columns]

    return Photo(crop(photo.hr, 1), None if photo.lr is None else crop(photo.lr, scale))


def pixels_to_tensor(pixels: Pixels) -> torch.Tensor:
    """uint8 (H,W,3) -> float32 (3,H,W) in [0,1]."""
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), dtype=np.float32, order="C") / 255)


def _item(photo: Photo, seed: int) -> dict[str, Any]:
    item = {"hr": pixels_to_tensor(photo.hr), "seed": seed}
    return item if photo.lr is None else {**item, "lr": pixels_to_tensor(photo.lr)}


class CropDataset(Dataset[dict[str, Any]]):
    """Random crops of a source's images, pass after pass without an end: item i is a crop of image i modulo their
    number.

    An item is ``{"hr": float32 (3,hr_size,hr_size) in [0,1], "seed": int}``, with ``"lr"`` where the source has pairs;
    the seed is meant for `Degradation`. An item depends on (seed, index) alone, neither on workers nor on earlier
    items, so a resumed run sees the same crops.

    An unreadable image is replaced by the next one of the source, every time alike, and the log says so once.

    Args:
        source: the images.
        hr_size: side of the crops, a multiple of ``scale``.
        scale: super-resolution factor.
        seed: decides crops and degradations.
        cache: decode all images at once and keep them as uint8 in memory.
        shrink: smallest factor that a photo is reduced by before it is cropped, in (0,1].
        lettering: draws onto crops; of pairs it would have to draw on both.

    Raises:
        ConfigError: from an item, where no image can be read.
    """

    def __init__(
        self,
        source: ImageSource,
        hr_size: int,
        scale: int,
        *,
        seed: int = 0,
        cache: bool = False,
        shrink: float = 1.0,
        lettering: Lettering | None = None,
    ) -> None:
        self.source, self.hr_size, self.scale, self.seed, self.shrink = source, hr_size, scale, seed, shrink
        self.lettering = lettering
        # In shared memory, where the processes that read count together.
        self._unreadable = torch.zeros(len(source), dtype=torch.bool).share_memory_()
        self._cache: list[Photo | None] | None = None
        if cache:
            # A mixture repeats images.
            read: dict[Hashable, Photo | None] = {}
            for i in range(len(source)):
                if (original := source.original(i)) not in read:
                    read[original] = self._read(i)
            self._cache = [read[source.original(i)] for i in range(len(source))]

    @property
    def num_skipped(self) -> int:
        """Number of unreadable images so far, over all workers of this process."""
        return int(self._unreadable.sum())

    def _read(self, image: int) -> Photo | None:
        try:
            return self.source.read(image)
        except UNREADABLE as error:
            if not self._unreadable[image]:
                self._unreadable[image] = True
                logger.warning(
                    "%s: skipped, it cannot be read (%s); %d skipped so far",
                    self.source.name(image), one_line(error), self.num_skipped,
                )  # fmt: skip
            return None

    def _photo(self, index: int) -> Photo:
        tries = min(len(self.source), MAX_TRIES)
        for step in range(tries):
            image = (index + step) % len(self.source)
            photo = self._read(image) if self._cache is None else self._cache[image]
            if photo is not None:
                return photo
        raise ConfigError(f"{self.source.title}: none of {tries} images in a row can be read; the log names them")

    def __getitem__(self, index: int) -> dict[str, Any]:
        completed, image = divmod(index, len(self.source))
        rng = np.random.default_rng([self.seed, completed, image])
        photo = self._photo(image)
        if self.shrink < 1:
            crop = random_shrunk_crop(photo, self.hr_size, self.scale, self.shrink, rng)
        else:
            crop = random_crop(photo, self.hr_size, self.scale, rng)
        if self.lettering is not None:
            crop = Photo(self.lettering(crop.hr, rng), crop.lr)
        return _item(crop, int(rng.integers(2**62)))


def held_out_crops(source: ImageSource, scale: int, crop_size: int, limit: int, seed: int) -> list[dict[str, Any]]:
    """Centre crops of photos, the same pixels every time.

    Unreadable images are left out, and the log says so.

    Args:
        source: the photos.
        scale: super-resolution factor.
        crop_size: side of the crops, a multiple of ``scale``; smaller photos are continued, see `pad_to`.
        limit: largest number of photos, at least 1; they are evenly spread over the source.
        seed: decides the items' seeds.

    Returns:
        Items as those of `CropDataset`.

    Raises:
        ConfigError: no photo can be read.
    """
    items: list[dict[str, Any]] = []
    count = min(limit, len(source))
    for index in (i * len(source) // count for i in range(count)):
        try:
            photo = pad_to(source.read(index), crop_size, scale)
        except UNREADABLE as error:
            logger.warning("%s: left out, it cannot be read (%s)", source.name(index), one_line(error))
            continue
        unit = 1 if photo.lr is None else scale
        top, left = ((side - crop_size) // 2 // unit * unit for side in photo.hr.shape[:2])
        own_seed = int(np.random.default_rng([seed, len(items)]).integers(2**62))
        items.append(_item(_cropped(photo, top, left, crop_size, scale), own_seed))
    if not items:
        raise ConfigError(f"{source.title}: none of the {count} images can be read; the log names them")
    return items
