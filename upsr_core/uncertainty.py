"""Uncertainty of the SR network, what follows from it and its image, and a heat map (UPSR, Sec. 3.2, 3.3)."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

from .pixels import LUMA

HEAT_MAP_LEVELS = 256
# The two ends of the heat map in OKLab (L, a, b): dark blue and light yellow, both inside sRGB.
_COLOUR_LOW = (0.22, 0.0, -0.09)
_COLOUR_HIGH = (0.93, -0.025, 0.13)


def uncertainty(sr: torch.Tensor, upsampled: torch.Tensor) -> torch.Tensor:
    """psi = |G - Y| / 2 per pixel and colour channel (Eq. 5).

    Args:
        sr: the SR network's output G in [-1,1], any shape.
        upsampled: the bicubic Y in [-1,1], same shape.

    Returns:
        psi of the same shape, in units of the [0,1] range: 0 where both agree.
    """
    if sr.shape != upsampled.shape:
        raise ValueError(f"sr {tuple(sr.shape)} and upsampled {tuple(upsampled.shape)} must have one shape")
    return (sr - upsampled).abs() / 2


def noise_weight(psi: torch.Tensor, psi_max: float = 0.1, weight_min: float = 0.4) -> torch.Tensor:
    """The noise weight w = u(psi) of Eq. 6, element by element: linear from weight_min at 0 to 1 at psi_max.

    Args:
        psi: uncertainty as `uncertainty` returns it; values above psi_max get weight 1.
        psi_max: uncertainty from which on the noise is full, > 0.
        weight_min: weight where there is no uncertainty, in [0,1]; 1 is isotropic noise.
    """
    return weight_min + (1 - weight_min) * (psi.clamp(0, psi_max) / psi_max)


def detail_share(sr: torch.Tensor, flat_threshold: float) -> torch.Tensor:
    """How much of the sampled detail each pixel keeps: 0 in flat regions, 1 where there is structure.

    Not in the paper. Its premise is that flat regions are nearly right already; sampling there can only leave grain.
    Flat is where G, which has less noise than the input, has little local contrast: the deviation of its luma from
    a Gaussian mean (sigma 2), root mean square under a Gaussian window (sigma 3).

    Args:
        sr: the SR network's output G in [-1,1], (B,3,H,W).
        flat_threshold: contrast from which on all detail is kept, > 0, in units of the [0,1] range.

    Returns:
        (B,1,H,W) in [0,1], linear in the contrast.
    """
    luma = (sr * sr.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True) / 2
    contrast = _gaussian_mean((luma - _gaussian_mean(luma, 2)) ** 2, 3).sqrt()
    return (contrast / flat_threshold).clamp(max=1)


def _gaussian_mean(image: torch.Tensor, sigma: int) -> torch.Tensor:
    """(B,1,H,W) under a Gaussian window of 3 sigma to each side, edges repeated."""
    reach = torch.arange(-3 * sigma, 3 * sigma + 1, device=image.device, dtype=image.dtype)
    kernel = torch.softmax(-(reach**2) / (2 * sigma**2), 0)[None, None, None]
    padded = F.pad(image, (3 * sigma,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))


def heat_map(psi: torch.Tensor, psi_max: float = 0.1) -> torch.Tensor:
    """Uncertainty as a picture: dark blue at 0, through gray, to light yellow at psi_max and above.

    The colours lie at equal distances on a straight line in OKLab (Ottosson 2020), so equal steps of psi look
    equal and lightness alone carries the order; blue to yellow is the axis that people with red-green colour
    blindness see as others do.

    Args:
        psi: (B,C,H,W), averaged over C, or (B,H,W).
        psi_max: uncertainty that gets the last colour, > 0.

    Returns:
        sRGB in [0,1], (B,3,H,W), float32.
    """
    if psi.ndim not in (3, 4):
        raise ValueError(f"psi must be (B,C,H,W) or (B,H,W), got {tuple(psi.shape)}")
    if psi_max <= 0:
        raise ValueError(f"psi_max must be above 0, got {psi_max}")
    mean = psi.float().mean(dim=1) if psi.ndim == 4 else psi.float()
    level = (mean / psi_max * (HEAT_MAP_LEVELS - 1)).round().clamp(0, HEAT_MAP_LEVELS - 1).long()
    return _colour_table().to(psi.device)[level].movedim(-1, 1).contiguous()


@lru_cache(maxsize=1)
def _colour_table() -> torch.Tensor:
    """(HEAT_MAP_LEVELS,3) sRGB values in [0,1] from _COLOUR_LOW to _COLOUR_HIGH."""
    low, high = (torch.tensor(colour, dtype=torch.float64) for colour in (_COLOUR_LOW, _COLOUR_HIGH))
    oklab = torch.lerp(low, high, torch.linspace(0, 1, HEAT_MAP_LEVELS, dtype=torch.float64)[:, None])
    # OKLab's published inverse: to the cube roots of the cone responses, then to linear sRGB.
    to_cones = [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    cones = (oklab @ torch.tensor(to_cones, dtype=torch.float64).T) ** 3
    linear = cones @ torch.tensor(to_linear, dtype=torch.float64).T
    srgb = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0) ** (1 / 2.4) - 0.055)
    return srgb.float()
