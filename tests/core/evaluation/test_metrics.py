from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from upsr_core.evaluation.metrics import colour_shift, fine_detail, fine_detail_ratio, grid_excess, luma, psnr, ssim


def _photo_like(seed: int, batch: int = 2, size: tuple[int, int] = (61, 80)) -> torch.Tensor:
    noise = torch.rand(batch, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=size, mode="bicubic").clamp(0, 1)


def _noisy(image: torch.Tensor, sigma: float, seed: int = 9) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + sigma * noise).clamp(0, 1)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [  # BT.601: black 16, white 235; the primaries are 16 + 219 * (0.299, 0.587, 0.114) to rounding
        ((0, 0, 0), 16.0),
        ((1, 1, 1), 235.0),
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
    ],
)
def test_luma_is_bt601_studio_range(colour: tuple[int, int, int], expected: float) -> None:
    image = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(luma(image), torch.full((2, 4, 5), expected, dtype=torch.float64))


def test_values_are_those_of_the_saved_8_bit_file() -> None:
    image = torch.full((1, 3, 20, 20), 100.4 / 255)
    assert torch.equal(luma(image), luma(torch.full_like(image, 100 / 255)))
    assert psnr(image, torch.full_like(image, 99.6 / 255), border=0).item() == math.inf


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_and_ssim_agree_with_scikit_image_per_sample(border: int) -> None:
    hr = _photo_like(0)
    sr = torch.stack([_noisy(hr, 0.02)[0], _noisy(hr, 0.2)[1]])
    inner = slice(border, -border or None)
    psnrs, ssims = psnr(sr, hr, border), ssim(sr, hr, border)
    assert psnrs.shape == ssims.shape == (2,)
    for i in range(2):
        a, b = (luma(image)[i, inner, inner].numpy() for image in (sr, hr))
        assert psnrs[i].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)
        expected = structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        assert ssims[i].item() == pytest.approx(expected, abs=1e-9)
    assert ssims[0] > ssims[1] + 0.1


def test_equal_images_are_perfect() -> None:
    image = _photo_like(1)
    assert psnr(image, image, border=4).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(ssim(image, image, border=4), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(fine_detail_ratio(image, image), torch.ones(2, dtype=torch.float64))


def test_border_is_left_out() -> None:
    hr = _photo_like(2)
    sr = hr.clone()
    sr[..., :4, :] = 0
    sr[..., -4:] = 1
    assert torch.isinf(psnr(sr, hr, border=4)).all()
    assert (psnr(sr, hr, border=3) < 40).all()


def _wave(cycles_per_pixel: float, amplitude: float = 20 / 219, angle: float = 0.0) -> torch.Tensor:
    y, x = np.mgrid[:128, :128].astype(np.float32)
    phase = 2 * np.pi * cycles_per_pixel * (np.cos(angle) * x + np.sin(angle) * y)
    return torch.from_numpy(0.5 + amplitude * np.sin(phase)).expand(1, 3, -1, -1)


@pytest.mark.parametrize("angle", [0.0, math.pi / 4, math.pi / 2])
def test_fine_detail_counts_waves_above_half_nyquist_in_every_direction(angle: float) -> None:
    # A wave of amplitude 20 Y levels has a mean square of 200.
    assert fine_detail(_wave(0.3017, angle=angle)).item() == pytest.approx(200, rel=0.01)
    assert fine_detail(_wave(0.20, angle=angle)).item() < 0.5


def test_fine_detail_ratio_follows_amplitude_squared() -> None:
    ratio = fine_detail_ratio(_wave(0.35, amplitude=10 / 219), _wave(0.35, amplitude=20 / 219))
    assert ratio.item() == pytest.approx(0.25, rel=0.02)


def test_image_edges_are_no_detail() -> None:
    ramp = torch.linspace(0, 1, 128).expand(1, 3, 128, 128)
    assert fine_detail(ramp).item() < 0.1


def test_colour_shift_is_signed_and_per_channel() -> None:
    hr = torch.full((2, 3, 8, 8), 100 / 255)
    sr = hr.clone()
    sr[1, 0] += 3 / 255
    sr[1, 2] -= 2 / 255
    torch.testing.assert_close(colour_shift(sr, hr), torch.tensor([[0, 0, 0], [3, 0, -2]], dtype=torch.float64))


@pytest.mark.parametrize("metric", [lambda a, b: psnr(a, b, 4), lambda a, b: ssim(a, b, 4), fine_detail_ratio])
def test_refuses_what_it_cannot_measure(metric) -> None:
    good = _photo_like(3)
    for bad in (good * 2 - 1, good.where(good < good.max(), torch.nan)):
        with pytest.raises(ValueError, match=r"image must be in \[0,1\]"):
            metric(bad, good)
    with pytest.raises(ValueError, match="must have one shape"):
        metric(good[:1], good)
    with pytest.raises(ValueError, match=r"float tensor \(B,3,H,W\)"):
        metric((good * 255).byte(), (good * 255).byte())


def test_refuses_a_border_that_leaves_too_little() -> None:
    image = _photo_like(4, size=(18, 40))
    with pytest.raises(ValueError, match="border 4 must be at least 0 and leave 11 pixels each way of 18x40"):
        ssim(image, image, border=4)
    with pytest.raises(ValueError, match="border -1"):
        psnr(image, image, border=-1)


def test_grid_excess_sees_a_grid_in_either_direction() -> None:
    smooth = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert grid_excess(smooth, 4).max() < 0.02
    for dim in (2, 3):
        lines = smooth.clone()
        lines.narrow(dim, 0, 256).index_fill_(dim, torch.arange(3, 256, 4), 1.0)
        excess = grid_excess(lines, 4)
        assert excess.shape == (2,)
        assert excess.min() > 0.1


def test_an_image_of_one_colour_has_no_grid_and_nothing_to_compare_detail_with() -> None:
    flat, photo = torch.full((1, 3, 64, 64), 0.3), _photo_like(5, size=(64, 64))[:1]
    assert grid_excess(flat, 4).tolist() == [0]
    assert fine_detail_ratio(photo, flat).isnan().all()
    assert fine_detail_ratio(flat, photo).item() < 1e-6
