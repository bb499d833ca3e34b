"""Images with a photo's statistics, for tests of what happens to photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from upsr_core.degradation.degrading import round_to_8_bits


def photo(seed: int, height: int = 96, width: int | None = None) -> torch.Tensor:
    """(3,H,W) with a photo's 1/f spectrum, correlated channels and hard edges; whole 8-bit levels."""
    width = width or height
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    shape = (3, height, width // 2 + 1)
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    texture = np.fft.irfft2(noise * amplitude, s=(height, width))
    texture /= texture.std()
    image = 0.5 + 0.15 * texture[:1] + 0.05 * texture[1:].mean(0) + 0.04 * texture
    image[:, height // 4 : height // 2, width // 3 : width // 2] += np.array([0.3, -0.2, 0.1])[:, None, None]
    return round_to_8_bits(torch.from_numpy(image.astype(np.float32)))


def photos(count: int, size: int = 96) -> torch.Tensor:
    return torch.stack([photo(i, size) for i in range(count)])


def to_uint8(image: torch.Tensor) -> np.ndarray:
    return torch.round(image * 255).byte().permute(1, 2, 0).numpy()


def write_smooth_photos(folder: Path) -> Path:
    """Two images of 130x98, ``a.png`` and ``b.png``, without an edge."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image.resize((130, 98), Image.Resampling.BICUBIC).save(folder / name)
    return folder
