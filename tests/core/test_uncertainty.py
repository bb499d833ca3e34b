from __future__ import annotations

import numpy as np
import pytest
import torch

from upsr_core.resampling import upsample
from upsr_core.uncertainty import detail_share, heat_map, noise_weight, uncertainty


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_uncertainty_is_half_the_distance() -> None:
    sr, upsampled = torch.tensor([1.0, -1.0, 0.2]), torch.tensor([-1.0, -1.0, 0.5])
    torch.testing.assert_close(uncertainty(sr, upsampled), torch.tensor([1.0, 0.0, 0.15]))


def test_uncertainty_is_per_pixel_and_channel() -> None:
    sr, upsampled = rand(2, 3, 8, 8), rand(2, 3, 8, 8, seed=1)
    psi = uncertainty(sr, upsampled)
    assert psi.shape == sr.shape
    assert uncertainty(sr[1:, 2:, 3:], upsampled[1:, 2:, 3:]).equal(psi[1:, 2:, 3:])


def test_uncertainty_refuses_two_shapes() -> None:
    with pytest.raises(ValueError, match=r"sr \(1, 3, 8, 8\) and upsampled \(1, 3, 8, 4\)"):
        uncertainty(rand(1, 3, 8, 8), rand(1, 3, 8, 4))


def test_noise_weight_is_linear_then_flat() -> None:
    psi = torch.tensor([0.0, 0.025, 0.05, 0.1, 0.2, 1.0])
    torch.testing.assert_close(noise_weight(psi), torch.tensor([0.4, 0.55, 0.7, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(noise_weight(psi, 0.2, 0.0), torch.tensor([0.0, 0.125, 0.25, 0.5, 1.0, 1.0]))


def test_upsample_is_bicubic_with_half_pixel_centres() -> None:
    """Against the cubic convolution of Keys with a = -0.75 on one line, edge samples repeated."""
    line = rand(9)

    def kernel(x: np.ndarray, a: float = -0.75) -> np.ndarray:
        x = np.abs(x)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    padded = np.pad(line.double().numpy(), 4, mode="edge")
    positions = (np.arange(36) + 0.5) / 4 - 0.5
    expected = kernel(positions[:, None] - (np.arange(17) - 4)) @ padded
    result = upsample(line.expand(1, 1, 9, 9), 4)
    assert result.shape == (1, 1, 36, 36)
    torch.testing.assert_close(result[0, 0, 17], torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


def test_upsample_of_one_pixel_and_by_one() -> None:
    pixel = rand(1, 3, 1, 1)
    torch.testing.assert_close(upsample(pixel, 4), pixel.expand(1, 3, 4, 4))
    torch.testing.assert_close(upsample(rand(1, 3, 5, 6), 1), rand(1, 3, 5, 6))


@pytest.mark.parametrize("lr", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_upsample_refuses_other_tensors(lr: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="lr must be a float tensor"):
        upsample(lr, 4)


# Heat map


def relative_luminance(rgb: torch.Tensor) -> torch.Tensor:
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return (linear * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1)


def test_heat_map_gets_lighter_all_the_way() -> None:
    colours = heat_map(torch.linspace(0, 0.1, 256).view(1, 1, 256), psi_max=0.1)[0, :, 0].T
    assert colours.min() >= 0
    assert colours.max() <= 1
    luminance = relative_luminance(colours)
    assert (luminance.diff() > 0).all()
    assert luminance[0] < 0.02
    assert luminance[-1] > 0.8


def test_heat_map_is_readable_without_red_green_vision() -> None:
    """Red and green run together: lightness, and blue against yellow, tell the colours apart."""
    colours = heat_map(torch.linspace(0, 0.1, 256).view(1, 1, 256))[0, :, 0].T
    assert (colours[:, 0] - colours[:, 1]).abs().max() < 0.15
    blueness = colours[:, 2] - colours[:, :2].mean(dim=1)
    assert blueness[0] > 0.1
    assert blueness[-1] < -0.2


def test_heat_map_takes_the_channel_mean_and_both_layouts() -> None:
    psi = 0.2 * rand(2, 3, 6, 5)
    colours = heat_map(psi)
    assert colours.shape == (2, 3, 6, 5)
    assert colours.dtype == torch.float32
    assert torch.equal(colours, heat_map(psi.mean(dim=1)))


def test_heat_map_saturates_at_psi_max() -> None:
    colours = heat_map(torch.tensor([[[0.2, 0.4, 1.0, 0.1]]]), psi_max=0.2)
    assert torch.equal(colours[..., 0], colours[..., 1])
    assert torch.equal(colours[..., 0], colours[..., 2])
    assert not torch.equal(colours[..., 0], colours[..., 3])


def test_heat_map_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="psi must be"):
        heat_map(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="psi_max must be above 0"):
        heat_map(torch.zeros(1, 4, 4), psi_max=0)


def test_detail_is_shared_out_by_the_local_contrast() -> None:
    """A flat half, and one with a checkerboard whose contrast is known."""
    squares = (torch.arange(64)[:, None] // 4 + torch.arange(96)[None] // 4) % 2
    sr = torch.where(torch.arange(96) < 48, 0.3, 0.3 + 0.2 * squares).expand(1, 3, -1, -1)
    share = detail_share(sr, 0.2)
    assert share.shape == (1, 1, 64, 96)
    assert share[..., :28].abs().max() < 1e-4
    # +-0.05 in [0,1] units, of which the mean takes a part.
    inner = (..., slice(16, 48), slice(70, 80))
    assert 0.15 < share[inner].min() <= share[inner].max() < 0.25
    torch.testing.assert_close(detail_share(sr, 0.1)[inner], 2 * share[inner])
    assert detail_share(sr, 1e-3)[inner].equal(torch.ones(1, 1, 32, 10))
