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
        return image + _coarse(reference - image)
    if method == "adain":
        dims = (-2, -1)
        deviation = image.std(dims, correction=0, keepdim=True).clamp(min=1e-6)
        gain = reference.std(dims, correction=0, keepdim=True) / deviation
        return (image - image.mean(dims, keepdim=True)) * gain + reference.mean(dims, keepdim=True)
    raise ValueError(f"color_fix must be one of {', '.join(COLOR_FIXES)}, not {method!r}")


def _coarse(image: torch.Tensor) -> torch.Tensor:
    """The coarse part after `WAVELET_LEVELS` levels of the "a trous" algorithm, binomial filter, edges repeated."""
    channels = image.shape[1]
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device).expand(channels, 1, 1, 3)
    for level in range(WAVELET_LEVELS):
        reach = 2**level
        padded = F.pad(image, (reach, reach, reach, reach), mode="replicate")
        rows = F.conv2d(padded, kernel, dilation=reach, groups=channels)
        image = F.conv2d(rows, kernel.transpose(2, 3), dilation=reach, groups=channels)
    return image
