"""Noise weights as users edit them, so that a denoiser learns to work with others than those of Eq. 6."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def edit_weights(weight: torch.Tensor, generators: Sequence[torch.Generator], share: float) -> torch.Tensor:
    """Move some samples' weight part of the way to a constant, in the whole image or in a rectangle.

    A denoiser that has only seen w = u(psi) takes other noise for detail: it leaves grain where a mask node has set
    more noise, or where the noise of one image is very uneven.

    Args:
        weight: w, (B,C,H,W) in [0,1].
        generators: one for each sample, on the CPU.
        share: of the samples that are edited, 0..1.

    Returns:
        w of the same shape, in [0,1].
    """
    edited = weight.clone()
    for one, generator in zip(edited, generators, strict=True):
        # All are drawn whatever is needed: a sample's draws must not depend on its values.
        chance, whole, strength, constant, *corners = torch.rand(8, generator=generator).tolist()
        if chance >= share:
            continue
        height, width = one.shape[-2:]
        top, bottom = sorted(round(corner * height) for corner in corners[:2])
        left, right = sorted(round(corner * width) for corner in corners[2:])
        region = one if whole < 0.5 else one[:, top:bottom, left:right]
        region.lerp_(torch.full_like(region, constant), strength)
    return edited
