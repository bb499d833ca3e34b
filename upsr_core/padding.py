"""Padding of images to a multiple, also where the image is smaller than the padding it needs."""

from __future__ import annotations

from typing import Literal

import torch

PadMode = Literal["reflect", "symmetric"]


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

    Returns ``image`` itself where nothing is missing.
    """
    height, width = image.shape[-2:]
    padded_height, padded_width = (-(-size // multiple) * multiple for size in (height, width))
    if padded_height != height:
        image = image.index_select(-2, mirror_indices(height, padded_height, mode, image.device))
    if padded_width != width:
        image = image.index_select(-1, mirror_indices(width, padded_width, mode, image.device))
    return image
