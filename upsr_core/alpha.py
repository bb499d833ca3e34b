"""Transparency beside super-resolution: colours for pixels that have none, and the upscaled alpha."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .uncertainty import upsample


def fill_transparent(rgb: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Give fully transparent pixels the colours of the visible ones around them.

    What is stored under alpha 0 is often black; upscaled as it is, it shows as a dark fringe. Missing colours
    come from an image pyramid, averaged with alpha as weight: from its finest level that has one there.

    Args:
        rgb: (B,3,h,w).
        alpha: (B,1,h,w) in [0,1], 0 transparent.

    Returns:
        (B,3,h,w), equal to ``rgb`` wherever alpha is above 0, and where a whole image is transparent.
    """
    levels = []
    colour, weight = rgb, alpha
    while max(weight.shape[-2:]) > 1:
        levels.append((colour, weight))
        sums = F.avg_pool2d(torch.cat([colour * weight, weight], 1), 2, ceil_mode=True)
        weight = sums[:, 3:]
        colour = torch.where(weight > 0, sums[:, :3] / weight, 0)
    filled = colour
    for colour, weight in reversed(levels):
        coarse = F.interpolate(filled, size=weight.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, colour, coarse)
    return torch.where((alpha > 0).any(dim=3, keepdim=True).any(dim=2, keepdim=True), filled, rgb)


def upscale_alpha(alpha: torch.Tensor, scale: int) -> torch.Tensor:
    """Bicubic alpha: (B,1,h,w) in [0,1] to (B,1,scale*h,scale*w) in [0,1], its overshoot clipped."""
    return upsample(alpha, scale).clamp(0, 1)
