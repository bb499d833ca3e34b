from __future__ import annotations

import math

import pytest
import torch

from upsr_core.degradation.kernels import (
    KERNEL_KINDS,
    gaussian_kernel,
    generalized_gaussian_kernel,
    make_kernel,
    plateau_kernel,
    sinc_kernel,
)


def covariance(kernel: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(kernel.shape[-1], dtype=torch.float64) - kernel.shape[-1] // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()])
    mean = points @ kernel.flatten()
    assert torch.allclose(mean, torch.zeros(2, dtype=torch.float64), atol=1e-12)
    return (points * kernel.flatten()) @ points.T


@pytest.mark.parametrize("size", [3, 7, 21])
@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_every_kind_is_a_centred_symmetric_average(kind: str, size: int) -> None:
    kernel = make_kernel(kind, size, 2.0, 0.7, 0.4, 1.6)
    assert kernel.shape == (size, size)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert bool((kernel >= 0).all())
    assert torch.allclose(kernel, kernel.flip(0, 1))
    covariance(kernel)
    assert kernel.argmax() == size * size // 2


def test_gaussian_has_the_asked_for_covariance() -> None:
    sigma_x, sigma_y, angle = 3.0, 1.5, 0.6
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    expected = turn @ torch.diag(torch.tensor([sigma_x**2, sigma_y**2], dtype=torch.float64)) @ turn.T
    measured = covariance(gaussian_kernel(61, sigma_x, sigma_y, angle))
    assert torch.allclose(measured, expected, atol=1e-6)


def test_isotropic_kinds_ignore_the_second_axis() -> None:
    for kind in ("iso", "generalized_iso", "plateau_iso"):
        kernel = make_kernel(kind, 15, 2.0, 0.5, 1.0, 1.5)
        assert torch.allclose(kernel, kernel.T)
        assert torch.equal(kernel, make_kernel(kind, 15, 2.0, 5.0, 0.0, 1.5))


def test_beta_one_is_the_gaussian_and_larger_betas_are_flatter() -> None:
    gaussian = gaussian_kernel(21, 2.0, 1.0, 0.3)
    assert torch.allclose(generalized_gaussian_kernel(21, 2.0, 1.0, 1.0, 0.3), gaussian)
    for make in (generalized_gaussian_kernel, plateau_kernel):
        peaked, flat = make(21, 2.0, 2.0, 0.5), make(21, 2.0, 2.0, 3.0)
        # One pixel off the centre of sigma 2 is still on the plateau of a flat kernel.
        assert peaked[10, 11] / peaked[10, 10] < 0.8
        assert flat[10, 11] / flat[10, 10] > 0.98


def test_plateau_halves_at_one_sigma() -> None:
    kernel = plateau_kernel(21, 2.0, 4.0, 1.7)
    assert kernel[10, 12] / kernel[10, 10] == pytest.approx(0.5)
    assert kernel[14, 10] / kernel[10, 10] == pytest.approx(0.5)


def test_sinc_passes_below_the_cutoff_and_stops_above() -> None:
    cutoff = math.pi / 2
    kernel = sinc_kernel(101, cutoff)
    response = torch.fft.fft2(torch.fft.ifftshift(kernel)).real
    frequency = torch.fft.fftfreq(101, dtype=torch.float64) * 2 * math.pi
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert torch.allclose(kernel, kernel.T)
    assert response[radius < 0.8 * cutoff].sub(1).abs().max() < 0.12
    assert response[radius > 1.2 * cutoff].abs().max() < 0.12
    assert response[radius < 0.8 * cutoff].sub(1).abs().mean() < 0.03
    assert response[radius > 1.2 * cutoff].abs().mean() < 0.03


@pytest.mark.parametrize(
    "call",
    [
        lambda: gaussian_kernel(4, 1.0, 1.0),
        lambda: gaussian_kernel(5, 0.0, 1.0),
        lambda: sinc_kernel(5, 0.0),
        lambda: sinc_kernel(5, 4.0),
        lambda: make_kernel("box", 5, 1.0, 1.0, 0.0, 1.0),
    ],
)
def test_impossible_kernels_are_refused(call) -> None:
    with pytest.raises(ValueError, match=r"odd|positive|cutoff|unknown kernel kind"):
        call()
