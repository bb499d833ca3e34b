"""From one image, perhaps with alpha, to the result that is asked for: the road of the command line and the nodes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .choices import LARGEST_SCALE
from .pipeline_upsr import UPSRPipeline
from .resampling import lanczos_resize, output_size, upsample


def upscale(
    pipe: UPSRPipeline,
    rgb: torch.Tensor,
    alpha: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    seed: int = 0,
    **sampling: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Upscale an image with its transparency.

    Args:
        pipe: the model.
        rgb: (1,3,h,w) in [0,1].
        alpha: (1,1,h,w) in [0,1], 0 transparent; or None.
        scale: enlargement, by default the model's own; for another one the model's result is resized (Lanczos).
        seed: of the noise. It is drawn on the CPU, so neither other images nor the device change the result.
        sampling: more arguments of `UPSRPipeline.__call__`.

    Returns:
        The image (1,3,H,W) and its alpha (1,1,H,W) or None, float32 in [0,1] on the CPU, sized as `output_size` says.

    Raises:
        ValueError: ``scale`` is out of its range, or an argument of the pipeline is.
    """
    scale = check_scale(pipe, scale)
    height, width = output_size(rgb.shape[-2], rgb.shape[-1], scale)
    images, _ = pipe(
        opaque(rgb, alpha),
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        return_dict=False,
        **sampling,
    )
    if alpha is not None:
        alpha = lanczos_resize(upscale_alpha(alpha.cpu(), pipe.scale), height, width)
    return lanczos_resize(images.cpu(), height, width), alpha


def check_scale(pipe: UPSRPipeline, scale: float | None, argument: str = "scale") -> float:
    """The enlargement ``scale``, by default the model's own.

    Raises:
        ValueError: it is not above 0, or more than `LARGEST_SCALE`; the message names ``argument``.
    """
    if scale is None:
        return pipe.scale
    if not 0 < scale <= LARGEST_SCALE:
        raise ValueError(f"{argument} {scale:g} must be above 0 and at most {LARGEST_SCALE:g}")
    return scale


def resizing_note(pipe: UPSRPipeline, scale: float) -> str | None:
    """A line that tells of the resizing to another enlargement than the model's own; None where there is none."""
    if scale == pipe.scale:
        return None
    note = f"the model enlarges {pipe.scale}x; results are resized to {scale:g}x (Lanczos)"
    return note if scale < pipe.scale else f"{note}, which adds no detail"


def opaque(rgb: torch.Tensor, alpha: torch.Tensor | None) -> torch.Tensor:
    """The image as networks should see it: fully transparent pixels have the colours around them."""
    return rgb if alpha is None else fill_transparent(rgb, alpha)


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
