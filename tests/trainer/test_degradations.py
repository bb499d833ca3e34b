from __future__ import annotations

import dataclasses
import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from trainer.degradation_config import (
    DEGRADATION_PRESETS,
    BlurConfig,
    DegradationConfig,
    JPEGConfig,
    NoiseConfig,
    ResizeConfig,
)
from trainer.degradations import (
    Degradation,
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    draw_blur_kernel,
    draw_resize_factor,
    resize,
    round_to_8_bits,
)
from trainer.jpeg import jpeg_round_trip, quantisation_tables


def photo(seed: int, height: int = 96, width: int | None = None) -> torch.Tensor:
    """(3, H, W) with a photo's 1/f spectrum, correlated channels and hard edges; whole 8-bit levels."""
    width = width or height
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    shape = (3, height, width // 2 + 1)
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    texture = np.fft.irfft2(noise * amplitude, s=(height, width))
    texture /= texture.std()
    image = 0.5 + 0.15 * texture[:1] + 0.05 * texture[1:].mean(0) + 0.04 * texture
    image[:, height // 4 : height // 2, width // 3 : width // 2] += np.array([0.3, -0.2, 0.1])[:, None, None]
    return round_to_8_bits(torch.from_numpy(image.astype(np.float32)))


def photos(count: int, size: int = 96) -> torch.Tensor:
    return torch.stack([photo(i, size) for i in range(count)])


def to_uint8(image: torch.Tensor) -> np.ndarray:
    return torch.round(image * 255).byte().permute(1, 2, 0).numpy()


# The whole degradation


@pytest.mark.parametrize("preset", DEGRADATION_PRESETS)
@pytest.mark.parametrize("scale", [2, 4])
def test_lr_has_the_right_size_and_eight_bits(preset: str, scale: int) -> None:
    hr = torch.stack([photo(i, 96, 64) for i in range(4)])
    lr = Degradation(DEGRADATION_PRESETS[preset], scale)(hr, range(4))
    assert lr.shape == (4, 3, 96 // scale, 64 // scale)
    assert lr.dtype == torch.float32
    assert 0 <= lr.min() <= lr.max() <= 1
    assert torch.allclose(lr * 255, torch.round(lr * 255), atol=1e-4)
    # Still the same picture: close to the plain reduction for its size.
    plain = resize(hr, lr.shape[-2:], "area", antialias=False)
    assert (lr.mean((1, 2, 3)) - plain.mean((1, 2, 3))).abs().max() < 0.06


@pytest.mark.parametrize("preset", DEGRADATION_PRESETS)
def test_a_sample_does_not_depend_on_its_batch(preset: str) -> None:
    degradation = Degradation(DEGRADATION_PRESETS[preset])
    hr, seeds = photos(5), [11, 5, 7, 3, 2**62]
    together = degradation(hr, seeds)
    backwards = degradation(hr.flip(0), torch.tensor(seeds[::-1]))
    assert torch.equal(together, backwards.flip(0))
    for i, seed in enumerate(seeds):
        assert torch.equal(degradation(hr[i : i + 1], [seed])[0], together[i])
    assert torch.equal(degradation(hr.to(memory_format=torch.channels_last), seeds), together)


def test_no_global_random_state_is_used() -> None:
    before = torch.get_rng_state()
    degradation = Degradation(DEGRADATION_PRESETS["upsr"])
    first = degradation(photos(2), [1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(degradation(photos(2), [1, 2]), first)
    assert not torch.equal(degradation(photos(2), [1, 3])[1], first[1])


def test_bicubic_preset_is_pillows_bicubic() -> None:
    hr = photo(0, 96)
    lr = Degradation(DEGRADATION_PRESETS["bicubic"])(hr[None], [0])[0]
    for channel in range(3):
        # Float mode, since Pillow rounds to 8 bits between its two passes otherwise.
        expected = np.asarray(Image.fromarray(hr[channel].numpy()).resize((24, 24), Image.Resampling.BICUBIC))
        assert np.abs(lr[channel].numpy() - expected.clip(0, 1)).max() < 0.502 / 255


def test_mild_is_bicubic_in_four_of_ten_and_light_otherwise() -> None:
    hr = photo(3, 64)[None].expand(400, -1, -1, -1)
    lr = Degradation(DEGRADATION_PRESETS["mild"])(hr, range(400))
    plain = Degradation(DEGRADATION_PRESETS["bicubic"])(hr[:1], [0])
    same = (lr == plain).flatten(1).all(1)
    assert 0.33 < same.float().mean() < 0.47
    rms = (lr - plain)[~same].pow(2).mean((1, 2, 3)).sqrt() * 255
    assert rms.median() > 2
    assert rms.max() < 25


def test_upsr_is_much_harder_than_mild() -> None:
    hr = photos(8)
    plain = Degradation(DEGRADATION_PRESETS["bicubic"])(hr, range(8))
    error = {
        name: (Degradation(DEGRADATION_PRESETS[name])(hr, range(8)) - plain).pow(2).mean() for name in ("mild", "upsr")
    }
    assert error["upsr"] > 3 * error["mild"]


def test_second_order_can_be_switched_off() -> None:
    upsr = DEGRADATION_PRESETS["upsr"]
    first_only = dataclasses.replace(upsr, second_order_prob=0.0)
    hr = photos(6)
    plain = Degradation(DEGRADATION_PRESETS["bicubic"])(hr, range(6))
    once, twice = (Degradation(c)(hr, range(6)) for c in (first_only, upsr))
    assert (once - plain).pow(2).mean() < (twice - plain).pow(2).mean()


def test_published_numbers() -> None:
    config = DegradationConfig()
    assert config == DEGRADATION_PRESETS["upsr"]
    assert (config.first.blur.kernel_size, config.second.blur.kernel_size) == ((3, 19), (3, 13))
    assert (config.first.noise.sigma, config.second.noise.sigma) == ((1, 30), (1, 25))
    assert (config.first.resize.factor, config.second.resize.factor) == ((0.15, 1.5), (0.3, 1.2))
    assert config.first.jpeg == config.second.jpeg == JPEGConfig(1.0, (30, 95))
    assert (config.second.blur.prob, config.final_sinc.prob, config.second_order_prob) == (0.8, 0.8, 1.0)


# Its parts


def test_blur_agrees_with_opencv() -> None:
    image = photo(1, 40, 52)
    kernel = draw_blur_kernel(BlurConfig(), np.random.default_rng(5))
    ours = blur(image[None], kernel)[0].permute(1, 2, 0).numpy()
    theirs = cv2.filter2D(image.permute(1, 2, 0).numpy(), -1, kernel.numpy(), borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(ours - theirs).max() < 1e-5


def test_kernel_draws_cover_their_ranges() -> None:
    rng = np.random.default_rng(0)
    kernels = [draw_blur_kernel(BlurConfig(), rng) for _ in range(600)]
    assert {k.shape[0] for k in kernels} == set(range(3, 20, 2))
    assert all(abs(float(k.sum()) - 1) < 1e-12 for k in kernels)
    negative = np.mean([bool((k < -1e-6).any()) for k in kernels])
    assert 0.05 < negative < 0.14  # sinc kernels alone have negative lobes; the smallest ones may have none


def test_resize_factors_cover_their_ranges() -> None:
    rng = np.random.default_rng(0)
    factors = np.array([draw_resize_factor(ResizeConfig(), rng) for _ in range(2000)])
    assert factors.min() >= 0.15
    assert factors.max() <= 1.5
    assert np.mean(factors > 1) == pytest.approx(0.2, abs=0.03)
    assert np.mean(factors < 1) == pytest.approx(0.7, abs=0.03)
    assert np.mean(factors[factors < 1]) == pytest.approx(0.575, abs=0.03)


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_has_the_asked_for_deviation(gray: bool) -> None:
    image = torch.full((1, 3, 128, 128), 0.5)
    noise = add_gaussian_noise(image, 12.0, gray, torch.Generator().manual_seed(0)) - image
    assert noise.std() * 255 == pytest.approx(12, rel=0.03)
    assert noise.mean().abs() * 255 < 0.3
    correlation = torch.corrcoef(noise[0].flatten(1))[0, 1]
    assert correlation == pytest.approx(1.0 if gray else 0.0, abs=0.02)


@pytest.mark.parametrize("gray", [False, True])
def test_poisson_noise_grows_with_the_root_of_brightness(gray: bool) -> None:
    # 2 levels, so full scale is 2 photons: variance = value / 2 * scale^2.
    image = torch.full((1, 3, 256, 128), 51 / 255)
    image[:, :, 128:] = 102 / 255
    noise = add_poisson_noise(image, 0.1, gray, torch.Generator().manual_seed(0)) - image
    for half, value in ((noise[:, :, :128], 0.2), (noise[:, :, 128:], 0.4)):
        assert half.std() == pytest.approx(0.1 * (value / 2) ** 0.5, rel=0.04)
        assert half.mean().abs() < 2e-3
    if gray:
        assert torch.allclose(noise[:, 0], noise[:, 2], atol=1e-6)


# JPEG


def libjpeg_round_trip(image: torch.Tensor, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).astype(float)


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (20, 9), (5, 10), (1, 1)])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95, 100])
def test_jpeg_agrees_with_libjpeg(quality: int, size: tuple[int, int]) -> None:
    # The median, since one coefficient that rounds the other way changes a whole small image.
    images = torch.stack([photo(i, 96)[:, 5 : 5 + size[0], 7 : 7 + size[1]] for i in range(12)])
    ours = jpeg_round_trip(images, [quality] * 12)
    errors = [np.abs(to_uint8(o) - libjpeg_round_trip(i, quality)).mean() for o, i in zip(ours, images, strict=True)]
    assert np.median(errors) < 0.8


def test_jpeg_tables_are_libjpegs() -> None:
    for quality in (1, 10, 49, 50, 75, 95, 100):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        expected = Image.open(buffer).quantization
        ours = quantisation_tables([quality])[0]
        assert [ours[0].tolist(), ours[1].tolist()] == [list(expected[0]), list(expected[1])]


def test_jpeg_agrees_with_opencv() -> None:
    image = photo(8, 96)
    bgr = to_uint8(image)[..., ::-1]
    decoded = cv2.imdecode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    ours = to_uint8(jpeg_round_trip(image[None], [60])[0])[..., ::-1]
    assert np.abs(ours.astype(float) - decoded).mean() < 1.0


def test_jpeg_quality_is_per_sample() -> None:
    image = photos(3)
    together = jpeg_round_trip(image, [20, 60, 95])
    for i, quality in enumerate([20, 60, 95]):
        assert torch.equal(together[i], jpeg_round_trip(image[i : i + 1], [quality])[0])
    errors = [float((jpeg_round_trip(image, [q] * 3) - image).pow(2).mean()) for q in (20, 60, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


# What is refused


def test_bad_input_is_refused() -> None:
    degradation = Degradation(DEGRADATION_PRESETS["upsr"])
    good = photos(2)
    for hr, seeds, words in [
        (good, [1], "one int per sample"),
        (good[0], [1], "must be float32"),
        ((good * 255).byte(), [1, 2], "must be float32"),
        (good[..., :94], [1, 2], "multiples of the scale 4"),
        (good[..., :32, :32], [1, 2], "at least 48"),
        (good * 2 - 1, [1, 2], r"must lie in \[0, 1\]"),
        (good * float("nan"), [1, 2], r"must lie in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            degradation(hr, seeds)
    with pytest.raises(ValueError, match="quality"):
        jpeg_round_trip(good, [0, 50])
    with pytest.raises(ValueError, match="one quality per image"):
        jpeg_round_trip(good, [50])


def test_smallest_hr_size_is_enough() -> None:
    for preset in DEGRADATION_PRESETS.values():
        degradation = Degradation(preset)
        hr = torch.full((60, 3, degradation.min_hr_size, degradation.min_hr_size), 0.5)
        assert degradation(hr, range(60)).shape[-1] == degradation.min_hr_size // 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BlurConfig(kernel_size=(4, 8)), "odd"),
        (lambda: BlurConfig(kind_probs=(1.0, 0.1, 0, 0, 0, 0)), "sum to 1"),
        (lambda: BlurConfig(sigma=(2.0, 1.0)), "low <= high|<= low"),
        (lambda: ResizeConfig(factor=(1.1, 1.5)), "span 1"),
        (lambda: ResizeConfig(modes=("lanczos",)), "modes"),
        (lambda: NoiseConfig(prob=1.5), r"\[0, 1\]"),
        (lambda: JPEGConfig(quality=(0, 95)), "quality"),
        (lambda: DegradationConfig(bicubic_prob=-0.1), "bicubic_prob"),
    ],
)
def test_bad_configurations_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
