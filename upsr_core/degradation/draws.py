"""Random parameters of the degradation of one sample, drawn on the host beforehand; noise fields are drawn later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from upsr_core.degradation.config import BlurConfig, DegradationConfig, JPEGConfig, NoiseConfig, ResizeConfig
from upsr_core.degradation.kernels import KERNEL_KINDS, make_kernel, sinc_kernel
from upsr_core.degradation.ragged import Size
from upsr_core.degradation.resampling import Resampling

_LARGE_SINC = 13


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of ``strength`` levels of 255, or Poisson noise of the scale ``strength``."""

    gaussian: bool
    strength: float
    gray: bool


@dataclass(frozen=True)
class SampleDraws:
    """The steps of one sample in order; None leaves a step out.

    Attributes:
        noise_seed: seed of the device's generator for both noise fields.
    """

    noise_seed: int
    first_blur: torch.Tensor | None = None
    first_resize: Resampling | None = None
    first_noise: Noise | None = None
    first_jpeg: int | None = None
    second_blur: torch.Tensor | None = None
    second_resize: Resampling | None = None
    second_noise: Noise | None = None
    early_jpeg: int | None = None
    final_resize: Resampling | None = None
    final_sinc: torch.Tensor | None = None
    late_jpeg: int | None = None


def draw_sample(config: DegradationConfig, hr_size: Size, lr_size: Size, seed: int) -> SampleDraws:
    """All random parameters of one sample; ``seed`` is a non-negative int."""
    rng = np.random.default_rng(seed)
    noise_seed = int(rng.integers(2**62))
    if rng.random() < config.bicubic_prob:
        return SampleDraws(noise_seed, final_resize=Resampling(lr_size, "bicubic", antialias=True))
    steps: dict[str, Any] = {
        "first_blur": _draw_blur(config.first.blur, rng),
        "first_resize": _draw_resize(config.first.resize, hr_size, rng),
        "first_noise": _draw_noise(config.first.noise, rng),
        "first_jpeg": _draw_jpeg(config.first.jpeg, rng),
    }
    if rng.random() < config.second_order_prob:
        steps["second_blur"] = _draw_blur(config.second.blur, rng)
        steps["second_resize"] = _draw_resize(config.second.resize, lr_size, rng)
        steps["second_noise"] = _draw_noise(config.second.noise, rng)
    early = rng.random() >= 0.5
    if early:
        steps["early_jpeg"] = _draw_jpeg(config.second.jpeg, rng)
    modes, sinc = config.second.resize.modes, config.final_sinc
    mode = modes[rng.integers(len(modes))]
    steps["final_resize"] = Resampling(lr_size, mode, config.second.resize.antialias)
    if rng.random() < sinc.prob:
        steps["final_sinc"] = sinc_kernel(_odd_size(rng, sinc.kernel_size), rng.uniform(*sinc.cutoff))
    if not early:
        steps["late_jpeg"] = _draw_jpeg(config.second.jpeg, rng)
    return SampleDraws(noise_seed, **steps)


def draw_blur_kernel(config: BlurConfig, rng: np.random.Generator) -> torch.Tensor:
    """A random kernel (k,k), float64, sum 1."""
    size = _odd_size(rng, config.kernel_size)
    if rng.random() < config.sinc_prob:
        cutoff = config.sinc_cutoff if size < _LARGE_SINC else config.sinc_cutoff_large
        return sinc_kernel(size, rng.uniform(*cutoff))
    kind = KERNEL_KINDS[rng.choice(len(KERNEL_KINDS), p=config.kind_probs)]
    beta = _draw_beta(rng, config.beta_plateau if kind.startswith("plateau") else config.beta_generalized)
    sigma_x, sigma_y = rng.uniform(*config.sigma, size=2)
    return make_kernel(kind, size, sigma_x, sigma_y, rng.uniform(-np.pi, np.pi), beta)


def draw_resize_factor(config: ResizeConfig, rng: np.random.Generator) -> float:
    """A random factor: uniform in [1, high] up, [low, 1] down, or 1."""
    direction = rng.choice(3, p=config.up_down_keep_probs)
    if direction == 0:
        return rng.uniform(1, config.factor[1])
    if direction == 1:
        return rng.uniform(config.factor[0], 1)
    return 1.0


def _odd_size(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(limits[0] + 2 * rng.integers((limits[1] - limits[0]) // 2 + 1))


def _draw_beta(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    low, high = limits
    if low < 1 < high:
        return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return rng.uniform(low, high)


def _draw_blur(config: BlurConfig, rng: np.random.Generator) -> torch.Tensor | None:
    return draw_blur_kernel(config, rng) if rng.random() < config.prob else None


def _draw_resize(config: ResizeConfig, reference: Size, rng: np.random.Generator) -> Resampling:
    factor = draw_resize_factor(config, rng)
    size = (max(1, round(reference[0] * factor)), max(1, round(reference[1] * factor)))
    return Resampling(size, config.modes[rng.integers(len(config.modes))], config.antialias)


def _draw_noise(config: NoiseConfig, rng: np.random.Generator) -> Noise | None:
    if rng.random() >= config.prob:
        return None
    gray = bool(rng.random() < config.gray_prob)
    gaussian = bool(rng.random() < config.gaussian_prob)
    return Noise(gaussian, rng.uniform(*(config.sigma if gaussian else config.poisson_scale)), gray)


def _draw_jpeg(config: JPEGConfig, rng: np.random.Generator) -> int | None:
    if rng.random() >= config.prob:
        return None
    return int(rng.integers(config.quality[0], config.quality[1] + 1))
