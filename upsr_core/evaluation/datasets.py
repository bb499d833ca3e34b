"""The images to measure on: the layouts of the usual test sets, and checks that decode nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..choices import READ_SUFFIXES

PAIRED, LR_ONLY = "pairs", "lr"
"""Kinds of input that no preset makes."""
_HR_NAMES = ("hr", "gt", "groundtruth", "hq")
_LR_NAMES = ("lr", "lq", "lr_x{scale}", "lr_bicubic_x{scale}", "lrbicx{scale}", "lr_bicubic/x{scale}", "x{scale}")
_HR_END = re.compile(r"[_-]?(HR|GT|hr|gt)$")
_LR_ENDS = ("_LR{scale}", "-LR{scale}", "_LR", "-LR", "_lr", "x{scale}", "_x{scale}")
_SWAPPED = range(5, 9)


@dataclass(frozen=True)
class Sample:
    """An image to measure on.

    Attributes:
        name: of its results; unique.
        hr, lr: its files; at least one is there.
    """

    name: str
    hr: Path | None
    lr: Path | None

    def seed(self, seed: int) -> int:
        """Seed of its degradation: neither its place nor the other images matter."""
        return int.from_bytes(hashlib.sha256(f"{seed}/{self.name}".encode()).digest()[:8], "big") >> 2


def find_samples(data: Path, hr: Path | None, scale: int, degraded: bool) -> list[Sample]:
    """The images of a data set.

    Known are a folder with subfolders for HR (`hr`, `gt`, ...) and LR (`lr`, `lq`, `lr_x4`, ...), as Set5, Set14 and
    ImageNet-Test have it; files ``*_HR`` and ``*_LR4`` beside each other at any depth, as in RealSR; and a folder of
    images.

    Args:
        data: the folder.
        hr: folder of the HR images that belong to the LR images in ``data``.
        scale: super-resolution factor.
        degraded: whether LR images are made from the HR images, so that a plain folder holds HR images.

    Raises:
        ValueError: nothing is there, or pairs do not match; the message names the file.
    """
    for folder in filter(None, (data, hr)):
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; get the data set and name its folder")
    if hr is not None:
        return _pairs(_images(hr), _images(data), hr, data, scale)
    hr_folder = _subfolder(data, _HR_NAMES, scale)
    lr_folder = _subfolder(data, _LR_NAMES, scale)
    if hr_folder and degraded:
        return [Sample(name, path, None) for name, path in _images(hr_folder).items()]
    if hr_folder and lr_folder:
        return _pairs(_images(hr_folder), _images(lr_folder), hr_folder, lr_folder, scale)
    if lr_folder and not degraded:
        return [Sample(name, None, path) for name, path in _images(lr_folder).items()]
    side_by_side = _side_by_side(data, scale)
    if side_by_side:
        return side_by_side
    images = _images(data).items()
    return [Sample(name, path, None) if degraded else Sample(name, None, path) for name, path in images]


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, upright, from the head of its file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            swapped = image.getexif().get(0x0112) in _SWAPPED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be read as an image; remove it or get it again") from error
    return (width, height) if swapped else (height, width)


def check_sizes(samples: Iterable[Sample], scale: int, crop: int | str | None) -> None:
    """Check that LR and HR fit each other, and that images are large enough for their crops.

    Args:
        samples: of one data set.
        scale: super-resolution factor.
        crop: side of the centre crop in HR pixels, ``"fit"`` to cut sides down to multiples of the scale, or None.

    Raises:
        ValueError: naming the file and what to do.
    """
    for sample in samples:
        hr = sample.hr and image_size(sample.hr)
        lr = sample.lr and image_size(sample.lr)
        if hr and lr and hr != (scale * lr[0], scale * lr[1]):
            raise ValueError(
                f"{sample.lr}: is {lr[1]}x{lr[0]}, and {sample.hr} {hr[1]}x{hr[0]} is not {scale} times that; "
                "give --scale, or pairs that match"
            )
        height, width = hr or (scale * lr[0], scale * lr[1])  # type: ignore[index]
        path = sample.hr or sample.lr
        if isinstance(crop, int) and min(height, width) < crop:
            raise ValueError(f"{path}: {width}x{height} is smaller than --crop {crop}; take a smaller crop")
        if crop is None and (height % scale or width % scale):
            raise ValueError(
                f"{path}: {width}x{height} is no multiple of {scale}; --crop fit cuts it down, --crop N takes a part"
            )
        if min(height, width) < scale:
            raise ValueError(f"{path}: {width}x{height} is smaller than the scale {scale}; remove it")


def find_image(folder: Path, name: str) -> Path | None:
    """The image ``name`` in a folder, whatever its type."""
    return next((path for path in sorted(folder.glob("*")) if path.stem == name and _is_image(path)), None)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images(folder: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if _is_image(path):
            if path.stem in images:
                raise ValueError(f"{path}: {images[path.stem].name} has the same name; rename or remove one")
            images[path.stem] = path
    if not images:
        raise ValueError(f"{folder}: no images in this folder ({' '.join(READ_SUFFIXES)})")
    return images


def _subfolder(data: Path, names: Iterable[str], scale: int) -> Path | None:
    by_name = {path.relative_to(data).as_posix().lower(): path for path in data.glob("*") if path.is_dir()}
    by_name |= {path.relative_to(data).as_posix().lower(): path for path in data.glob("*/*") if path.is_dir()}
    return next((by_name[name] for name in (n.format(scale=scale) for n in names) if name in by_name), None)


def _pairs(hr: dict[str, Path], lr: dict[str, Path], hr_folder: Path, lr_folder: Path, scale: int) -> list[Sample]:
    """Pairs by equal names, or by names that end in HR and LR marks."""
    ends = tuple(end.format(scale=scale) for end in _LR_ENDS)
    samples = []
    left = dict(lr)
    for name, path in hr.items():
        base = _HR_END.sub("", name)
        found = next((key for key in (name, base, *(base + end for end in ends)) if key in left), None)
        if found is None:
            raise ValueError(f"{path}: {lr_folder} holds no LR image for it; add it or remove the HR image")
        samples.append(Sample(base, path, left.pop(found)))
    if left:
        raise ValueError(
            f"{next(iter(left.values()))}: {hr_folder} holds no HR image for it; add it or remove this one"
        )
    return samples


def _side_by_side(data: Path, scale: int) -> list[Sample]:
    """RealSR's layout: ``Canon/Test/4/Canon_001_HR.png`` and ``Canon_001_LR4.png``."""
    samples = []
    for path in sorted(data.rglob("*_HR.*")):
        if _is_image(path):
            base = path.stem.removesuffix("_HR")
            lr = find_image(path.parent, f"{base}_LR{scale}")
            if lr is None:
                raise ValueError(f"{path}: {base}_LR{scale}{path.suffix} is missing beside it")
            samples.append(Sample("_".join([*path.parent.relative_to(data).parts, base]), path, lr))
    return samples
