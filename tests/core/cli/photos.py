"""Photos for the tests of the command, and what came of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (20, 13), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (4, 5, 4), np.uint8)
    image = Image.fromarray(levels, "RGBA").resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(path)
    return path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
