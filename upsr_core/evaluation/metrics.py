"""Measures of a super-resolved image, most of them beside the real one, as super-resolution papers take them.

All are taken of the image as an 8-bit file would hold it, in float64 on the CPU; PSNR, SSIM and fine detail on Y of
YCbCr (ITU-R BT.601, studio range 16..235).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from upsr_core.pixels import quantise

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
# (K1 * L)^2 and (K2 * L)^2 of Wang et al. 2004, with L = 255.
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2
# Half the Nyquist frequency, in cycles per pixel.
FINE_DETAIL_FREQUENCY = 0.25
# Rounding's power in an image of one colour is far below, that of one level at one pixel far above.
NO_DETAIL = 1e-9


def luma(image: torch.Tensor) -> torch.Tensor:
    """Y of YCbCr of the image's 8-bit values.

    Args:
        image: float (B,3,H,W), RGB in [0,1].

    Returns:
        (B,H,W) float64 on the CPU, 16 (black) to 235 (white), not rounded.

    Raises:
        ValueError: another shape or type, NaN, or values outside [0,1].
    """
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(f"image must be a float tensor (B,3,H,W), got {image.dtype} {tuple(image.shape)}")
    if not (image.min() >= 0 and image.max() <= 1):
        span = f"[{image.min().item():.4g},{image.max().item():.4g}]"
        raise ValueError(f"image must be in [0,1] but spans {span}; clip or scale it first")
    rgb = quantise(image).cpu().double()
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255
    return 16 + torch.einsum("bchw,c->bhw", rgb, weights)


def psnr(sr: torch.Tensor, hr: torch.Tensor, border: int) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB, peak 255: (B,), infinite for equal images.

    Args:
        sr, hr: (B,3,H,W) in [0,1].
        border: pixels left out at each edge; papers leave out as many as the scale.
    """
    a, b = _luma_pair(sr, hr, border, smallest=1)
    return 10 * torch.log10(255**2 / (a - b).square().mean(dim=(1, 2)))


def ssim(sr: torch.Tensor, hr: torch.Tensor, border: int) -> torch.Tensor:
    """Structural similarity (Wang et al. 2004), Gaussian window of 11x11 and sigma 1.5: (B,).

    Args:
        sr, hr: (B,3,H,W) in [0,1].
        border: pixels left out at each edge; papers leave out as many as the scale.
    """
    a, b = _luma_pair(sr, hr, border, smallest=SSIM_WINDOW)
    mean_a, mean_b, aa, bb, ab = _window_means(torch.stack([a, b, a * a, b * b, a * b]))
    variance_a, variance_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_a + variance_b + SSIM_C2)
    return (luminance * structure).mean(dim=(1, 2))


def fine_detail(image: torch.Tensor) -> torch.Tensor:
    """Power of the image above half the Nyquist frequency: (B,), mean square in units of Y levels.

    Radial frequency, of the image under a Hann window, so that its edges do not count as detail.

    Args:
        image: (B,3,H,W) in [0,1].
    """
    y = luma(image)
    height, width = y.shape[-2:]
    window = _hann(height)[:, None] * _hann(width)
    power = torch.fft.fft2((y - y.mean(dim=(1, 2), keepdim=True)) * window).abs().square()
    frequency = torch.hypot(_frequencies(height)[:, None], _frequencies(width))
    return (power * (frequency > FINE_DETAIL_FREQUENCY)).sum(dim=(1, 2)) / (height * width * window.square().sum())


def fine_detail_ratio(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """Fine detail of ``sr`` in units of that of ``hr``: (B,). Below 1 is too smooth, above 1 too rough.

    Says how much there is, not whether it is in the right place. NaN where ``hr`` has one colour.
    """
    _check_same_shape(sr, hr)
    detail = fine_detail(hr)
    return torch.where(detail > NO_DETAIL, fine_detail(sr) / detail, math.nan)


def colour_shift(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """Mean difference of ``sr`` to ``hr`` for each colour channel: (B,3), in 8-bit levels, signed."""
    _check_same_shape(sr, hr)
    return (quantise(sr).cpu().double() - quantise(hr).cpu().double()).mean(dim=(2, 3))


def grid_excess(image: torch.Tensor, period: int) -> torch.Tensor:
    """By what share gradients at the strongest place of a grid of ``period`` pixels exceed their average: (B,), or 0.

    Shows checkerboards and blocks that upsampling leaves behind; a photo has about none.

    Args:
        image: (B,3,H,W) in [0,1].
        period: of the grid, the super-resolution factor.
    """
    excess = []
    for dim in (2, 3):
        steps = quantise(image).diff(dim=dim).abs().mean(dim=(1, 5 - dim))
        phases = torch.stack([steps[:, phase::period].mean(dim=1) for phase in range(period)])
        mean = phases.mean(dim=0)
        excess.append(torch.where(mean > 0, phases.amax(dim=0) / mean - 1, 0))
    return torch.stack(excess).amax(dim=0)


def _check_same_shape(sr: torch.Tensor, hr: torch.Tensor) -> None:
    if sr.shape != hr.shape:
        raise ValueError(f"sr {tuple(sr.shape)} and hr {tuple(hr.shape)} must have one shape")


def _luma_pair(sr: torch.Tensor, hr: torch.Tensor, border: int, smallest: int) -> tuple[torch.Tensor, torch.Tensor]:
    _check_same_shape(sr, hr)
    height, width = sr.shape[-2:]
    if border < 0 or min(height, width) - 2 * border < smallest:
        raise ValueError(f"border {border} must be at least 0 and leave {smallest} pixels each way of {height}x{width}")
    inner = slice(border, height - border), slice(border, width - border)
    return luma(sr)[(slice(None), *inner)], luma(hr)[(slice(None), *inner)]


def _window_means(maps: torch.Tensor) -> torch.Tensor:
    """Gaussian means of (N,B,H,W) at all places where the whole window fits."""
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    kernel = torch.exp(-(offset**2) / (2 * SSIM_SIGMA**2))
    kernel /= kernel.sum()
    flat = maps.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat[:, 0].unflatten(0, maps.shape[:2])


def _hann(length: int) -> torch.Tensor:
    # Sampled at pixel centres: never all zero, even for a single pixel.
    position = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return torch.sin(torch.pi * position).square()


def _frequencies(length: int) -> torch.Tensor:
    return torch.fft.fftfreq(length, dtype=torch.float64)
