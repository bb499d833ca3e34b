"""Output sizes other than the model's own."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image


def output_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of an LR image enlarged ``scale`` times, rounded, at least 1."""
    return max(1, round(scale * height)), max(1, round(scale * width))


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B,C,H,W) in [0,1] on the CPU to (B,C,height,width) by Lanczos, clipped; as it is where it has that size."""
    if image.shape[-2:] == (height, width):
        return image
    planes = [
        np.asarray(Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.LANCZOS))
        for plane in image.float().flatten(0, 1)
    ]
    return torch.from_numpy(np.stack(planes)).clamp(0, 1).unflatten(0, image.shape[:2])
