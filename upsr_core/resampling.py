"""Images at other sizes: bicubic upsampling, output sizes, and padding to a multiple."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

PadMode = Literal["reflect", "symmetric"]


def upsample(lr: torch.Tensor, scale: int) -> torch.Tensor:
    """Bicubic Y of the LR image: (B,C,h,w) -> (B,C,scale*h,scale*w), half-pixel centres, no antialiasing.

    Works in any value range; bicubic weights may overshoot it a little, and nothing is clipped.
    """
    if lr.ndim != 4 or not lr.is_floating_point():
        raise ValueError(f"lr must be a float tensor (B,C,h,w), got {lr.dtype} {tuple(lr.shape)}")
    return F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False, antialias=False)


def output_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of an LR image enlarged ``scale`` times, rounded, at least 1."""
    return max(1, round(scale * height)), max(1, round(scale * width))


def lanczos_resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B,C,H,W) in [0,1] on the CPU to (B,C,height,width) by Lanczos, clipped; unchanged if it has that size."""
    if image.shape[-2:] == (height, width):
        return image
    planes = [
        np.asarray(Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.LANCZOS))
        for plane in image.float().flatten(0, 1)
    ]
    return torch.from_numpy(np.stack(planes)).clamp(0, 1).unflatten(0, image.shape[:2])


def mirror_indices(size: int, padded_size: int, mode: PadMode, device: torch.device | None = None) -> torch.Tensor:
    """Source index of every position when a line of ``size`` samples is mirrored to ``padded_size`` samples.

    ``reflect`` leaves the edge sample out of the mirror image (abcd|cba), ``symmetric`` repeats it (abcd|dcba).
    Mirrors are chained as often as needed, so a line of one sample works too.
    """
    position = torch.arange(padded_size, device=device)
    if size == 1:
        return torch.zeros_like(position)
    period = 2 * (size - 1) if mode == "reflect" else 2 * size
    position = position % period
    return torch.where(position < size, position, period - int(mode == "symmetric") - position)


def pad_to_multiple(image: torch.Tensor, multiple: int, mode: PadMode = "reflect") -> torch.Tensor:
    """Pad (B,C,h,w) at the right and the bottom until both sides are multiples of ``multiple``.

    Returns:
        The padded image, or ``image`` itself if nothing is missing.
    """
    height, width = image.shape[-2:]
    padded_height, padded_width = (-(-size // multiple) * multiple for size in (height, width))
    if padded_height != height:
        image = image.index_select(-2, mirror_indices(height, padded_height, mode, image.device))
    if padded_width != width:
        image = image.index_select(-1, mirror_indices(width, padded_width, mode, image.device))
    return image
