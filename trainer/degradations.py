"""HR crops -> LR crops: the second-order degradation of Real-ESRGAN (ICCV Workshops 2021) and milder ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from trainer.blur_kernels import KERNEL_KINDS, make_kernel, sinc_kernel
from trainer.degradation_config import (
    DEGRADATION_PRESETS,
    BlurConfig,
    DegradationConfig,
    JPEGConfig,
    NoiseConfig,
    ResizeConfig,
)
from trainer.jpeg import jpeg_round_trip

__all__ = [
    "DEGRADATION_PRESETS",
    "Degradation",
    "DegradationConfig",
    "add_gaussian_noise",
    "add_poisson_noise",
    "blur",
    "resize",
    "round_to_8_bits",
]

_LARGE_SINC = 13
_LUMA = (0.299, 0.587, 0.114)


def round_to_8_bits(image: torch.Tensor) -> torch.Tensor:
    """Clips to [0, 1] and rounds to whole multiples of 1/255."""
    return torch.round(image.clamp(0, 1) * 255) / 255


def blur(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Filters every channel of (B, C, H, W) with one odd kernel (k, k), borders reflected."""
    batch, channels, height, width = image.shape
    pad = kernel.shape[-1] // 2
    padded = F.pad(image, (pad, pad, pad, pad), mode="reflect")
    planes = padded.reshape(batch * channels, 1, height + 2 * pad, width + 2 * pad)
    weight = kernel.to(dtype=image.dtype).to(image.device)[None, None]
    return F.conv2d(planes, weight).view(batch, channels, height, width)


def resize(image: torch.Tensor, size: tuple[int, int], mode: str, antialias: bool) -> torch.Tensor:
    """Resizes (B, C, H, W) to (height, width) by "area", "bilinear" or "bicubic"; no change at that size."""
    if tuple(image.shape[-2:]) == size:
        return image
    if mode == "area":
        return F.interpolate(image, size=size, mode="area")
    return F.interpolate(image, size=size, mode=mode, align_corners=False, antialias=antialias)


def add_gaussian_noise(image: torch.Tensor, sigma: float, gray: bool, generator: torch.Generator) -> torch.Tensor:
    """Adds N(0, sigma^2), sigma in levels of 255, to (1, 3, H, W) in [0, 1]; clipped to [0, 1]."""
    shape = (1, 1 if gray else 3, *image.shape[-2:])
    noise = torch.randn(shape, generator=generator, device=image.device)
    return (image + noise * (sigma / 255)).clamp_(0, 1)


def add_poisson_noise(image: torch.Tensor, scale: float, gray: bool, generator: torch.Generator) -> torch.Tensor:
    """Adds `scale` times the deviation of a Poisson draw to (1, 3, H, W) in [0, 1]; clipped to [0, 1].

    Full scale counts as many photons as the image has different 8-bit levels, up to a power of two.
    """
    clean = image.clamp(0, 1)
    if gray:
        clean = sum(weight * clean[:, i : i + 1] for i, weight in enumerate(_LUMA))  # type: ignore[assignment]
    levels = torch.round(clean * 255)
    clean = levels / 255
    used = torch.bincount(levels.long().flatten(), minlength=256).count_nonzero()
    photons = torch.exp2(torch.ceil(torch.log2(used.float())))
    noise = torch.poisson(clean * photons, generator=generator) / photons - clean
    return (image + noise * scale).clamp_(0, 1)


def _odd_size(rng: np.random.Generator, limits: tuple[int, int]) -> int:
    return int(limits[0] + 2 * rng.integers((limits[1] - limits[0]) // 2 + 1))


def _beta(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    low, high = limits
    if low < 1 < high:
        return rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return rng.uniform(low, high)


def draw_blur_kernel(config: BlurConfig, rng: np.random.Generator) -> torch.Tensor:
    """A random kernel (k, k), float64, sum 1."""
    size = _odd_size(rng, config.kernel_size)
    if rng.random() < config.sinc_prob:
        cutoff = config.sinc_cutoff if size < _LARGE_SINC else config.sinc_cutoff_large
        return sinc_kernel(size, rng.uniform(*cutoff))
    kind = KERNEL_KINDS[rng.choice(len(KERNEL_KINDS), p=config.kind_probs)]
    beta = _beta(rng, config.beta_plateau if kind.startswith("plateau") else config.beta_generalized)
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


class Degradation:
    """Makes LR crops of HR crops, each sample with its own kernels, factors, noise and quality.

    A sample's result depends on its pixels, its seed and the kind of device alone, not on the batch.
    """

    def __init__(self, config: DegradationConfig, scale: int = 4) -> None:
        if scale < 1:
            raise ValueError(f"scale must be 1 or more, got {scale}")
        self.config = config
        self.scale = scale

    @property
    def min_hr_size(self) -> int:
        """Smallest HR side whose intermediate images can all be reflected by half a kernel."""
        config = self.config
        if config.bicubic_prob == 1:
            return self.scale
        sides = [float(self.scale)]
        if config.first.blur.prob > 0:
            sides.append(config.first.blur.kernel_size[1] // 2 + 1)
        if config.second_order_prob * config.second.blur.prob > 0:
            smallest = config.first.resize.factor[0]
            sides.append((config.second.blur.kernel_size[1] // 2 + 1) / smallest)
        if config.final_sinc.prob > 0:
            sides.append((config.final_sinc.kernel_size[1] // 2 + 1) * self.scale)
        return int(np.ceil(max(sides) / self.scale)) * self.scale

    @torch.no_grad()
    def __call__(self, hr: torch.Tensor, seeds: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """hr float32 (B, 3, H, W) in [0, 1] -> lr (B, 3, H/scale, W/scale), whole multiples of 1/255.

        seeds: one non-negative int per sample. ValueError for another shape, dtype or range, or for a side
        that is no multiple of the scale or below `min_hr_size`.
        """
        self._check(hr, seeds)
        # Another memory format runs other kernels, whose last digits may differ.
        hr = hr.contiguous()
        with torch.autocast(hr.device.type, enabled=False):
            return torch.cat([self._degrade(hr[i : i + 1], int(seed)) for i, seed in enumerate(seeds)])

    def _check(self, hr: torch.Tensor, seeds: Sequence[int] | torch.Tensor) -> None:
        if hr.ndim != 4 or hr.shape[1] != 3 or hr.shape[0] == 0 or hr.dtype != torch.float32:
            raise ValueError(f"hr must be float32 (B, 3, H, W), got {hr.dtype} {tuple(hr.shape)}")
        if len(seeds) != hr.shape[0]:
            raise ValueError(f"seeds must hold one int per sample: {hr.shape[0]} samples, {len(seeds)} seeds")
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale or min(height, width) < self.min_hr_size:
            raise ValueError(
                f"hr sides must be multiples of the scale {self.scale} and at least {self.min_hr_size} "
                f"for this degradation, got {height}x{width}"
            )
        low, high = (float(value) for value in torch.aminmax(hr))
        if not (low >= 0 and high <= 1):
            raise ValueError(f"hr must lie in [0, 1], got values from {low:g} to {high:g}")

    def _degrade(self, hr: torch.Tensor, seed: int) -> torch.Tensor:
        config = self.config
        rng = np.random.default_rng(seed)
        generator = torch.Generator(hr.device).manual_seed(int(rng.integers(2**62)))
        hr_size = (hr.shape[-2], hr.shape[-1])
        lr_size = (hr_size[0] // self.scale, hr_size[1] // self.scale)
        if rng.random() < config.bicubic_prob:
            return round_to_8_bits(resize(hr, lr_size, "bicubic", antialias=True))

        image = self._blur(hr, config.first.blur, rng)
        image = self._resize(image, config.first.resize, hr_size, rng)
        image = self._noise(image, config.first.noise, rng, generator)
        image = self._jpeg(image, config.first.jpeg, rng)
        if rng.random() < config.second_order_prob:
            image = self._blur(image, config.second.blur, rng)
            image = self._resize(image, config.second.resize, lr_size, rng)
            image = self._noise(image, config.second.noise, rng, generator)
        if rng.random() < 0.5:
            image = self._jpeg(self._finish_size(image, lr_size, rng), config.second.jpeg, rng)
        else:
            image = self._finish_size(self._jpeg(image, config.second.jpeg, rng), lr_size, rng)
        return round_to_8_bits(image)

    def _blur(self, image: torch.Tensor, config: BlurConfig, rng: np.random.Generator) -> torch.Tensor:
        return blur(image, draw_blur_kernel(config, rng)) if rng.random() < config.prob else image

    def _resize(
        self, image: torch.Tensor, config: ResizeConfig, reference: tuple[int, int], rng: np.random.Generator
    ) -> torch.Tensor:
        factor = draw_resize_factor(config, rng)
        size = (max(1, round(reference[0] * factor)), max(1, round(reference[1] * factor)))
        return resize(image, size, config.modes[rng.integers(len(config.modes))], config.antialias)

    def _noise(
        self, image: torch.Tensor, config: NoiseConfig, rng: np.random.Generator, generator: torch.Generator
    ) -> torch.Tensor:
        if rng.random() >= config.prob:
            return image
        gray = rng.random() < config.gray_prob
        if rng.random() < config.gaussian_prob:
            return add_gaussian_noise(image, rng.uniform(*config.sigma), gray, generator)
        return add_poisson_noise(image, rng.uniform(*config.poisson_scale), gray, generator)

    def _jpeg(self, image: torch.Tensor, config: JPEGConfig, rng: np.random.Generator) -> torch.Tensor:
        if rng.random() >= config.prob:
            return image
        return jpeg_round_trip(image, [int(rng.integers(config.quality[0], config.quality[1] + 1))])

    def _finish_size(self, image: torch.Tensor, lr_size: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
        resizing, sinc = self.config.second.resize, self.config.final_sinc
        image = resize(image, lr_size, resizing.modes[rng.integers(len(resizing.modes))], resizing.antialias)
        if rng.random() >= sinc.prob:
            return image
        return blur(image, sinc_kernel(_odd_size(rng, sinc.kernel_size), rng.uniform(*sinc.cutoff)))
