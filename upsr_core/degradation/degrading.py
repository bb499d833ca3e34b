"""HR crops -> LR crops: the second-order degradation of Real-ESRGAN (ICCV Workshops 2021) and milder ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from upsr_core.degradation.config import DegradationConfig
from upsr_core.degradation.draws import Noise, SampleDraws, draw_sample
from upsr_core.degradation.jpeg import HALF_LEVEL, jpeg_round_trip
from upsr_core.degradation.ragged import RaggedImages, canvas, to_device
from upsr_core.degradation.resampling import resize
from upsr_core.pixels import LUMA

# Transforms of few different sizes, all of them quick ones: accelerators prepare each size once.
_FFT_MULTIPLE = 32


def round_to_8_bits(image: torch.Tensor) -> torch.Tensor:
    """Clip to [0,1] and round to whole multiples of 1/255."""
    return torch.floor(image.clamp(0, 1) * 255 + HALF_LEVEL) / 255


def blur(images: RaggedImages, kernels: Sequence[torch.Tensor | None]) -> RaggedImages:
    """Filter each image with its own kernel, with reflected borders.

    The product of Fourier transforms takes the same time for every size of kernel.

    Args:
        images: (B,C,H,W).
        kernels: (k,k) with an odd k for each image; None leaves the image as it is.
    """
    size = max(1 if kernel is None else len(kernel) for kernel in kernels)
    reach = size // 2
    centred = torch.zeros(len(images), 1, size, size)
    for i, kernel in enumerate(kernels):
        inset = reach - (0 if kernel is None else len(kernel) // 2)
        centred[i, 0, inset : size - inset, inset : size - inset] = 1.0 if kernel is None else kernel
    height, width = (side + 2 * reach for side in canvas(images.sizes))
    extended = images.extended(reach, (height, width), "reflect")
    shape = [side + -side % _FFT_MULTIPLE for side in (height, width)]
    # The conjugate makes it a correlation, as filters of images are.
    spectrum = torch.fft.rfft2(to_device(centred, extended.device), s=shape).conj()
    filtered = torch.fft.irfft2(torch.fft.rfft2(extended, s=shape) * spectrum, s=shape)
    return RaggedImages(filtered[..., : height - 2 * reach, : width - 2 * reach], images.sizes)


def add_gaussian_noise(image: torch.Tensor, sigma: float, gray: bool, generator: torch.Generator) -> torch.Tensor:
    """Add N(0, sigma^2), sigma in levels of 255, to (1,3,H,W) in [0,1]; clipped to [0,1]."""
    shape = (1, 1 if gray else 3, *image.shape[-2:])
    noise = torch.randn(shape, generator=generator, device=image.device)
    return (image + noise * (sigma / 255)).clamp_(0, 1)


def add_poisson_noise(image: torch.Tensor, scale: float, gray: bool, generator: torch.Generator) -> torch.Tensor:
    """Add ``scale`` times the deviation of a Poisson draw to (1,3,H,W) in [0,1]; clipped to [0,1].

    Full scale counts as many photons as the image has different 8-bit levels, up to a power of two.
    """
    clean = image.clamp(0, 1)
    if gray:
        clean = sum(weight * clean[:, i : i + 1] for i, weight in enumerate(LUMA))  # type: ignore[assignment]
    levels = torch.floor(clean * 255 + HALF_LEVEL)
    clean = levels / 255
    # Not by bincount or unique, for which the host would wait for an accelerator.
    used = levels.new_zeros(256).scatter_(0, levels.long().flatten(), 1).sum()
    photons = torch.exp2(torch.ceil(torch.log2(used)))
    noise = torch.poisson(clean * photons, generator=generator) / photons - clean
    return (image + noise * scale).clamp_(0, 1)


def _add_noise(
    images: RaggedImages, noises: Sequence[Noise | None], generators: Sequence[torch.Generator]
) -> RaggedImages:
    """One image after the other: each has a generator of its own, and its field must not depend on the canvas."""

    def noisy(index: int, image: torch.Tensor) -> torch.Tensor:
        noise = noises[index]
        if noise is None:
            return image
        add = add_gaussian_noise if noise.gaussian else add_poisson_noise
        return add(image, noise.strength, noise.gray, generators[index])

    return images.map(noisy)


def degrade(hr: torch.Tensor, draws: Sequence[SampleDraws]) -> torch.Tensor:
    """Carry out the steps drawn for each sample, on all samples at once.

    The host does not wait for the device, and apart from the noise fields the number of operations does not grow
    with the batch.

    Args:
        hr: float32 (B,3,H,W) in [0,1], on the device that computes.
        draws: one for each sample.

    Returns:
        (B,3,h,w), whole multiples of 1/255.
    """
    generators = [torch.Generator(hr.device).manual_seed(draw.noise_seed) for draw in draws]
    add_noise = functools.partial(_add_noise, generators=generators)
    steps: dict[str, Callable[[RaggedImages, list[Any]], RaggedImages]] = {
        "first_blur": blur,
        "first_resize": resize,
        "first_noise": add_noise,
        "first_jpeg": jpeg_round_trip,
        "second_blur": blur,
        "second_resize": resize,
        "second_noise": add_noise,
        "early_jpeg": jpeg_round_trip,
        "final_resize": resize,
        "final_sinc": blur,
        "late_jpeg": jpeg_round_trip,
    }
    images = RaggedImages.whole(hr)
    for name, step in steps.items():
        drawn = [getattr(draw, name) for draw in draws]
        if any(value is not None for value in drawn):
            images = step(images, drawn)
    return round_to_8_bits(images.pixels)


class Degradation:
    """Makes LR crops from HR crops, each sample with its own kernels, factors, noise and quality.

    A sample's result depends on its pixels, its seed and the kind of device alone, not on the batch. On an
    accelerator, which works on a whole batch at once, that holds up to float32 rounding; rarely, this makes a JPEG
    coefficient round the other way.

    Args:
        config: the degradation, or several with their shares, of which each sample draws one by its seed.
        scale: super-resolution factor.

    Raises:
        ValueError: a share or the scale is out of its range.
    """

    def __init__(self, config: DegradationConfig | Mapping[DegradationConfig, float], scale: int = 4) -> None:
        if scale < 1:
            raise ValueError(f"scale must be 1 or more, got {scale}")
        shares = {config: 1.0} if isinstance(config, DegradationConfig) else dict(config)
        if not shares or min(shares.values()) <= 0:
            raise ValueError(f"the shares of a mix must all be above 0, got {list(shares.values())}")
        self.configs = tuple(shares)
        self.shares = np.array(list(shares.values())) / sum(shares.values())
        self.scale = scale

    @property
    def min_hr_size(self) -> int:
        """Smallest HR side whose intermediate images can all be reflected by half a kernel."""
        return max(self._min_hr_size(config) for config in self.configs)

    def _min_hr_size(self, config: DegradationConfig) -> int:
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
        """Degrade a batch.

        Args:
            hr: float32 (B,3,H,W) in [0,1].
            seeds: one non-negative int for each sample, on the host.

        Returns:
            (B,3,H/scale,W/scale), whole multiples of 1/255.

        Raises:
            ValueError: another shape or dtype; a side that is no multiple of the scale or below `min_hr_size`; another
                range, which is checked on a CPU alone, as the host would have to wait for an accelerator.
        """
        self._check(hr, seeds)
        height, width = hr.shape[-2:]
        lr_size = (height // self.scale, width // self.scale)
        draws = [draw_sample(self._config(int(seed)), (height, width), lr_size, int(seed)) for seed in seeds]
        # Another memory format runs other kernels, whose last digits may differ.
        hr = hr.contiguous()
        with _full_precision(hr.device):
            if hr.device.type == "cpu":
                # Nothing is gained by a batch here, and canvases of the largest size would cost time.
                return torch.cat([degrade(hr[i : i + 1], draws[i : i + 1]) for i in range(len(draws))])
            return degrade(hr, draws)

    def _config(self, seed: int) -> DegradationConfig:
        if len(self.configs) == 1:
            return self.configs[0]
        # Not the stream that the sample's own draws come from.
        return self.configs[np.random.default_rng([seed, 1]).choice(len(self.configs), p=self.shares)]

    def _check(self, hr: torch.Tensor, seeds: Sequence[int] | torch.Tensor) -> None:
        if hr.ndim != 4 or hr.shape[1] != 3 or hr.shape[0] == 0 or hr.dtype != torch.float32:
            raise ValueError(f"hr must be float32 (B,3,H,W), got {hr.dtype} {tuple(hr.shape)}")
        if len(seeds) != hr.shape[0]:
            raise ValueError(f"seeds must hold one int per sample: {hr.shape[0]} samples, {len(seeds)} seeds")
        height, width = hr.shape[-2:]
        if height % self.scale or width % self.scale or min(height, width) < self.min_hr_size:
            raise ValueError(
                f"hr sides must be multiples of the scale {self.scale} and at least {self.min_hr_size} "
                f"for this degradation, got {height}x{width}"
            )
        if hr.device.type == "cpu":
            low, high = (float(value) for value in torch.aminmax(hr))
            if not (low >= 0 and high <= 1):
                raise ValueError(f"hr must lie in [0,1], got values from {low:g} to {high:g}")


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TensorFloat-32: with 11 bits, JPEG's coefficients would round at random."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
