from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from upsr_core.evaluation.niqe import NIQE, _fit

OFFSET = np.arange(-3, 4)
LINE = np.exp(-(OFFSET**2) / (2 * (7 / 6) ** 2))
WINDOW = np.outer(LINE, LINE) / np.outer(LINE, LINE).sum()


def _photo_like(seed: int, size: tuple[int, int] = (300, 400)) -> torch.Tensor:
    """Noise with the spectrum of a photo, 1/f."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.fftfreq(size[1]))
    spectrum = torch.fft.fft2(torch.randn(3, *size, generator=generator)) / frequency.clamp(min=1 / max(size))
    image = torch.fft.ifft2(spectrum).real
    return (0.5 + 0.15 * image / image.std()).clamp(0, 1)[None]


@pytest.fixture(scope="module")
def niqe(tmp_path_factory: pytest.TempPathFactory) -> NIQE:
    """With parameters of such images, written and read as the usual file has them."""
    start = NIQE(torch.zeros(36).double(), torch.eye(36).double(), torch.from_numpy(WINDOW))
    y = 255 * _photo_like(0, (960, 960)).mean(dim=1)[0].double()
    features = torch.cat([start._features(y, 96), start._features(y[::2, ::2].contiguous(), 48)], dim=1)
    path = tmp_path_factory.mktemp("niqe") / "niqe_pris_params.npz"
    mean, covariance = features.mean(dim=0).numpy()[None], torch.cov(features.T).numpy()
    np.savez(path, mu_pris_param=mean, cov_pris_param=covariance, gaussian_window=WINDOW)
    return NIQE.load(path)


@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_a_fit_finds_the_shape_and_scale_of_what_was_drawn(shape: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.laplace(size=(2, 400, 400)) if shape == 1 else rng.normal(size=(2, 400, 400)) / 2**0.5
    x[1] *= 3
    found, left, right, mean = _fit(torch.from_numpy(x))
    np.testing.assert_allclose(found, shape, rtol=0.03)
    # exp(-(|x| / scale)^shape): both draws have scale 1.
    np.testing.assert_allclose(torch.stack([left, right]), [[math.sqrt(2) ** 0, 3.0]] * 2, rtol=0.03)
    np.testing.assert_allclose(mean, 0, atol=0.03)


def test_what_photos_do_not_look_like_is_further_away(niqe: NIQE) -> None:
    image = _photo_like(1)
    noisy = (image + 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(image, 7, stride=1, padding=3, count_include_pad=False)
    good, noise, blur = niqe(torch.cat([image, noisy, blurred])).tolist()
    assert good < 0.7 * min(noise, blur)


def test_one_image_does_not_change_another_and_whole_blocks_alone_count(niqe: NIQE) -> None:
    image = _photo_like(3)
    cut = image[..., : 3 * 96, : 4 * 96]
    alone = niqe(image)
    torch.testing.assert_close(niqe(torch.cat([image, image.flip(-1)]))[:1], alone)
    # The last rows lend nothing but their part of the local mean.
    torch.testing.assert_close(niqe(cut), alone)


def test_too_small_an_image_has_no_number(niqe: NIQE) -> None:
    assert math.isnan(niqe(_photo_like(0, (191, 120))).item())
    assert math.isfinite(niqe(_photo_like(0, (192, 120))).item())


def test_blocks_of_one_colour_do_not_count(niqe: NIQE) -> None:
    image = _photo_like(4)
    image[..., :96, :192] = 1
    assert niqe(image).item() == pytest.approx(niqe(_photo_like(4)).item(), rel=0.3)
    assert math.isnan(niqe(torch.ones(1, 3, 192, 192)).item())


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: holds no NIQE parameters; get https://"):
        NIQE.load(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match=r"other\.npz: holds no NIQE parameters"):
        NIQE.load(path)
