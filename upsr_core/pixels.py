"""Pixel values as files hold them: whole levels, bytes, and the luma of RGB."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the luma, ITU-R BT.601."""


def quantise(image: torch.Tensor, maximum: int = 255) -> torch.Tensor:
    """[0,1] to whole levels 0..maximum, rounded half up, clipped; same shape and type."""
    return (image * maximum + 0.5).floor().clamp(0, maximum)


def to_pil(image: torch.Tensor) -> Image.Image:
    """(3,H,W) in [0,1] as a PIL image of 8 bits a channel."""
    return Image.fromarray(quantise(image.float()).permute(1, 2, 0).cpu().numpy().astype(np.uint8))
