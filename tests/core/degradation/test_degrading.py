from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from tests.images import photo, photos
from upsr_core.degradation.config import (
    DEGRADATION_PRESETS,
    BlurConfig,
    DegradationConfig,
    JPEGConfig,
    NoiseConfig,
    ResizeConfig,
)
from upsr_core.degradation.degrading import Degradation, add_gaussian_noise, add_poisson_noise, blur, degrade
from upsr_core.degradation.draws import SampleDraws, draw_blur_kernel, draw_resize_factor, draw_sample
from upsr_core.degradation.ragged import RaggedImages

# The whole degradation


@pytest.mark.parametrize("preset", DEGRADATION_PRESETS)
@pytest.mark.parametrize("scale", [2, 4])
def test_lr_has_the_right_size_and_eight_bits(preset: str, scale: int) -> None:
    hr = torch.stack([photo(i, 96, 80) for i in range(4)])
    lr = Degradation(DEGRADATION_PRESETS[preset], scale)(hr, range(4))
    assert lr.shape == (4, 3, 96 // scale, 80 // scale)
    assert lr.dtype == torch.float32
    assert 0 <= lr.min() <= lr.max() <= 1
    assert torch.allclose(lr * 255, torch.round(lr * 255), atol=1e-4)
    # Still the same picture: close to the plain reduction for its size.
    plain = F.interpolate(hr, lr.shape[-2:], mode="area")
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


def drawn(config: DegradationConfig, count: int, size: int = 96) -> list[SampleDraws]:
    return [draw_sample(config, (size, size), (size // 4, size // 4), seed) for seed in range(count)]


@pytest.mark.parametrize("preset", DEGRADATION_PRESETS)
def test_a_whole_batch_at_once_gives_what_each_sample_gives_alone(preset: str) -> None:
    """As on an accelerator."""
    config = without_poisson(DEGRADATION_PRESETS[preset])
    hr, draws = photos(16), drawn(config, 16)
    together = degrade(hr, draws)
    alone = torch.cat([degrade(hr[i : i + 1], draws[i : i + 1]) for i in range(16)])
    levels = (together - alone).abs() * 255
    # A JPEG coefficient that lies next to a half may round the other way, and changes one block a little.
    assert (levels.amax((1, 2, 3)) < 0.01).sum() >= 15
    assert levels.mean() < 0.01


def without_poisson(config: DegradationConfig) -> DegradationConfig:
    """On a CPU, how many random numbers a Poisson draw takes depends on the value, so one pixel moves all others."""
    stages = {
        name: dataclasses.replace(stage, noise=dataclasses.replace(stage.noise, gaussian_prob=1.0))
        for name, stage in (("first", config.first), ("second", config.second))
    }
    return dataclasses.replace(config, **stages)


class Operations(TorchDispatchMode):
    """Names of the operations that are carried out, and the matmul precision of each."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.precisions: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        self.precisions.add(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


# What makes the host wait for an accelerator: values, or sizes that depend on values, are asked for.
WAITING = {"_local_scalar_dense", "item", "nonzero", "bincount", "_unique2", "masked_select", "equal", "is_nonzero"}


def test_the_host_never_waits_for_the_device() -> None:
    draws = drawn(DEGRADATION_PRESETS["upsr"], 12)
    kinds = {noise.gaussian for draw in draws for noise in (draw.first_noise, draw.second_noise) if noise}
    assert kinds == {True, False}
    with Operations() as operations:
        degrade(photos(12), draws)
    assert not WAITING & set(operations.names)


def test_operations_do_not_grow_with_the_batch() -> None:
    counts = []
    for copies in (1, 4):
        # Poisson and Gaussian noise, each drawn by itself, are left out.
        draws = [dataclasses.replace(d, first_noise=None, second_noise=None) for d in drawn(DegradationConfig(), 4)]
        with Operations() as operations:
            degrade(photos(4).repeat(copies, 1, 1, 1), draws * copies)
        on_host = {"copy_", "slice", "fill_", "lift_fresh", "select", "_to_copy", "detach", "constant_pad_nd"}
        counts.append(len([name for name in operations.names if name not in on_host]))
    assert counts[0] == counts[1]


def test_reduced_matmul_precision_is_switched_off_inside_and_on_again() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with Operations() as operations, torch.autocast("cpu", dtype=torch.bfloat16):
            lr = Degradation(DEGRADATION_PRESETS["upsr"])(photos(2), [1, 2])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(lr, Degradation(DEGRADATION_PRESETS["upsr"])(photos(2), [1, 2]))
    assert "highest" in operations.precisions


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


def test_moderate_lies_between_mild_and_upsr() -> None:
    hr = photos(24)
    plain = Degradation(DEGRADATION_PRESETS["bicubic"])(hr, range(24))
    names = ("mild", "moderate", "upsr")
    mild, moderate, upsr = (
        (Degradation(DEGRADATION_PRESETS[name])(hr, range(24)) - plain).pow(2).mean() for name in names
    )
    assert upsr > 3 * mild
    assert upsr > moderate > 1.5 * mild


def test_second_order_can_be_switched_off() -> None:
    upsr = DEGRADATION_PRESETS["upsr"]
    first_only = dataclasses.replace(upsr, second_order_prob=0.0)
    hr = photos(6)
    plain = Degradation(DEGRADATION_PRESETS["bicubic"])(hr, range(6))
    once, twice = (Degradation(c)(hr, range(6)) for c in (first_only, upsr))
    assert (once - plain).pow(2).mean() < (twice - plain).pow(2).mean()


def test_presets_of_other_papers_differ_from_upsr_in_what_their_docstring_says() -> None:
    upsr, resshift = DEGRADATION_PRESETS["upsr"], DEGRADATION_PRESETS["resshift"]
    assert resshift.second_order_prob == 0.5
    assert dataclasses.replace(resshift, second_order_prob=1.0) == upsr
    esrgan = DEGRADATION_PRESETS["real-esrgan"]
    for order, sigma in ((esrgan.first, (0.2, 3)), (esrgan.second, (0.2, 1.5))):
        assert (order.blur.kernel_size, order.blur.sigma, order.blur.sinc_prob) == ((7, 21), sigma, 0.1)
        shares = np.add.reduceat(order.blur.kind_probs, [0, 2, 4])
        np.testing.assert_allclose(shares, [0.7, 0.15, 0.15])
    assert (esrgan.first.noise, esrgan.second.noise) == (upsr.first.noise, upsr.second.noise)
    assert esrgan.second.blur.prob == esrgan.final_sinc.prob == 0.8


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
    """A kernel and a border for each image, of sizes of their own; an uneven kernel shows which way it is turned."""
    rng = np.random.default_rng(5)
    images = [photo(i, *size) for i, size in enumerate([(40, 52), (37, 21), (96, 96), (30, 30)])]
    uneven = torch.from_numpy(rng.dirichlet(np.ones(35)).reshape(5, 7)[:, 1:6])
    kernels = [
        draw_blur_kernel(BlurConfig(), rng),
        uneven,
        draw_blur_kernel(BlurConfig(kernel_size=(21, 21)), rng),
        None,
    ]
    blurred = blur(RaggedImages.packed([image[None] for image in images]), kernels)
    for i, (image, kernel) in enumerate(zip(images, kernels, strict=True)):
        weights = np.ones((1, 1)) if kernel is None else kernel.numpy()
        theirs = cv2.filter2D(image.permute(1, 2, 0).numpy(), -1, weights, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(blurred.image(i)[0].permute(1, 2, 0).numpy() - theirs).max() < 1e-5


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
        (good * 2 - 1, [1, 2], r"must lie in \[0,1\]"),
        (good * float("nan"), [1, 2], r"must lie in \[0,1\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            degradation(hr, seeds)


def test_smallest_hr_size_is_enough() -> None:
    for preset in DEGRADATION_PRESETS.values():
        degradation = Degradation(preset)
        hr = torch.full((30, 3, degradation.min_hr_size, degradation.min_hr_size), 0.5)
        assert degradation(hr, range(30)).shape[-1] == degradation.min_hr_size // 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BlurConfig(kernel_size=(4, 8)), "odd"),
        (lambda: BlurConfig(kind_probs=(1.0, 0.1, 0, 0, 0, 0)), "sum to 1"),
        (lambda: BlurConfig(sigma=(2.0, 1.0)), "low <= high|<= low"),
        (lambda: ResizeConfig(factor=(1.1, 1.5)), "span 1"),
        (lambda: ResizeConfig(modes=("lanczos",)), "modes"),
        (lambda: NoiseConfig(prob=1.5), r"\[0,1\]"),
        (lambda: JPEGConfig(quality=(0, 95)), "quality"),
        (lambda: DegradationConfig(bicubic_prob=-0.1), "bicubic_prob"),
    ],
)
def test_bad_configurations_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_mix_draws_its_parts_by_their_shares() -> None:
    hr, parts = photos(1, 64), ("bicubic", "upsr")
    alone = {name: Degradation(DEGRADATION_PRESETS[name]) for name in parts}
    mix = Degradation({DEGRADATION_PRESETS["bicubic"]: 3.0, DEGRADATION_PRESETS["upsr"]: 1.0})
    counts = dict.fromkeys(parts, 0)
    for seed in range(100):
        lr = mix(hr, [seed])
        counts[next(name for name in parts if torch.equal(lr, alone[name](hr, [seed])))] += 1
    assert 60 <= counts["bicubic"] <= 90
    assert mix.min_hr_size == alone["upsr"].min_hr_size


def test_a_mix_with_an_empty_share_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Degradation({DEGRADATION_PRESETS["bicubic"]: 0.0})
