"""Correction of the result's colours by those of the input, for models that shift them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .choices import COLOR_FIXES

# Each level doubles the reach: five blur with a standard deviation of 13 pixels, far above the detail that 4x adds.
WAVELET_LEVELS = 5


def fix_color(image: torch.Tensor, reference: torch.Tensor, method: str) -> torch.Tensor:
    """``image`` with the colours of ``reference``.

    Args:
        image: (B,C,H,W) in any range.
        reference: the upsampled input, same shape and range.
        method: ``"none"``; ``"wavelet"``, the reference's coarse scales of an undecimated wavelet transform under the
            image's fine ones; or ``"adain"``, the reference's mean and standard deviation per image and channel
            (adaptive instance normalisation, Huang and Belongie 2017).

    Returns:
        (B,C,H,W); values may leave the range a little.

    Raises:
        ValueError: unknown method.
    """
    if method == "none":
        return image
    if method == "wavelet":
        fixed = image.clone(memory_format=torch.contiguous_format)
        # One plane at a time: its coarse scales take several times its memory.
        for plane, target in zip(fixed.flatten(0, 1), reference.flatten(0, 1), strict=True):
            plane += _coarse(target - plane)
        return fixed
    if method == "adain":
        dims = (-2, -1)
        deviation = image.std(dims, correction=0, keepdim=True).clamp(min=1e-6)
        gain = reference.std(dims, correction=0, keepdim=True) / deviation
        return (image - image.mean(dims, keepdim=True)) * gain + reference.mean(dims, keepdim=True)
    raise ValueError(f"color_fix must be one of {', '.join(COLOR_FIXES)}, not {method!r}")


def _coarse(plane: torch.Tensor) -> torch.Tensor:
    """(H,W) after `WAVELET_LEVELS` levels of smoothing by the "a trous" algorithm, binomial filter, edges repeated."""
    height, width = plane.shape
    for level in range(WAVELET_LEVELS):
        reach = 2**level
        padded = F.pad(plane[None, None], (reach, reach, reach, reach), mode="replicate")[0, 0]
        rows = padded[:height].add(padded[2 * reach :]).div_(2).add_(padded[reach:-reach]).div_(2)
        plane = rows[:, :width].add(rows[:, 2 * reach :]).div_(2).add_(rows[:, reach:-reach]).div_(2)
    return plane
