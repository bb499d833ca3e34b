"""Blur kernels of the degradation model, from their definitions.

Each function returns a float64 kernel (size,size) that sums to 1, centred on the middle pixel. With the
quadratic form q = x^T S^-1 x of a covariance S (Real-ESRGAN, ICCV Workshops 2021, Sec. 3.1 and 3.2):

    Gaussian      exp(-q / 2)
    generalised   exp(-q^beta / 2)
    plateau       1 / (1 + q^beta)
    sinc          c J1(c r) / (2 pi r), the ideal low-pass with the circular cut-off c; it rings
"""

from __future__ import annotations

import math

import torch

from upsr_core.degradation.config import KERNEL_KINDS


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"kernel size must be odd and positive, got {size}")


def _grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    return axis[:, None], axis[None, :]


def quadratic_form(size: int, sigma_x: float, sigma_y: float, angle: float) -> torch.Tensor:
    """The quadratic form q = x^T S^-1 x of a covariance S.

    Args:
        size: side of the kernel in pixels, odd.
        sigma_x, sigma_y: standard deviations in pixels along the two axes of S, above 0.
        angle: of these axes in radians, from the x axis towards the y axis.

    Returns:
        (size,size) float64.

    Raises:
        ValueError: an even size, or a sigma that is not above 0.
    """
    _check_size(size)
    if sigma_x <= 0 or sigma_y <= 0:
        raise ValueError(f"sigma must be positive, got {sigma_x} and {sigma_y}")
    y, x = _grid(size)
    along = math.cos(angle) * x + math.sin(angle) * y
    across = math.cos(angle) * y - math.sin(angle) * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> torch.Tensor:
    """Gaussian (size,size); isotropic where sigma_x == sigma_y. Sigmas in pixels, angle in radians."""
    kernel = torch.exp(-0.5 * quadratic_form(size, sigma_x, sigma_y, angle))
    return kernel / kernel.sum()


def generalized_gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float, beta: float, angle: float = 0.0
) -> torch.Tensor:
    """Generalised Gaussian (size,size); beta 1 is the Gaussian, below 1 more peaked, above 1 flatter."""
    kernel = torch.exp(-0.5 * quadratic_form(size, sigma_x, sigma_y, angle) ** beta)
    return kernel / kernel.sum()


def plateau_kernel(size: int, sigma_x: float, sigma_y: float, beta: float, angle: float = 0.0) -> torch.Tensor:
    """Plateau-shaped kernel (size,size); a larger beta has a flatter top and steeper sides."""
    kernel = 1.0 / (1.0 + quadratic_form(size, sigma_x, sigma_y, angle) ** beta)
    return kernel / kernel.sum()


def sinc_kernel(size: int, cutoff: float) -> torch.Tensor:
    """Circular low-pass (size,size) with the cut-off in radians per pixel, 0 < cutoff <= pi."""
    _check_size(size)
    if not 0 < cutoff <= math.pi:
        raise ValueError(f"sinc cutoff must lie in (0,pi], got {cutoff}")
    y, x = _grid(size)
    radius = torch.sqrt(x**2 + y**2)
    centre = size // 2
    radius[centre, centre] = 1.0
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[centre, centre] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def make_kernel(kind: str, size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> torch.Tensor:
    """Kernel of one of `KERNEL_KINDS`. "*iso" kinds ignore sigma_y and angle, Gaussian ones ignore beta."""
    if kind not in KERNEL_KINDS:
        raise ValueError(f"unknown kernel kind {kind!r}; known: {', '.join(KERNEL_KINDS)}")
    if not kind.endswith("aniso"):
        sigma_y, angle = sigma_x, 0.0
    if kind.startswith("generalized"):
        return generalized_gaussian_kernel(size, sigma_x, sigma_y, beta, angle)
    if kind.startswith("plateau"):
        return plateau_kernel(size, sigma_x, sigma_y, beta, angle)
    return gaussian_kernel(size, sigma_x, sigma_y, angle)
