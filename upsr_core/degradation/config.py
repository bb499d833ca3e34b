"""Every number of the degradation model, and the presets.

Where the presets' numbers come from:

- ``upsr``: the configuration that UPSR (CVPR 2025) was published with. The paper itself names only the model, that of
  Real-ESRGAN.
- ``real-esrgan``: Real-ESRGAN (ICCV Workshops 2021, arXiv:2107.10833), the details of its degradation model: Gaussian,
  generalised and plateau kernels with 0.7 / 0.15 / 0.15, sizes 7, 9, ..., 21 in both orders, sigma 0.2-3 and 0.2-1.5,
  beta 0.5-4 and 1-2, sinc with 0.1, second blur with 0.8, Gaussian or Poisson noise with 0.5 each, sigma 1-30 and 1-25,
  scale 0.05-3 and 0.05-2.5, gray with 0.4, JPEG 30-95, final sinc with 0.8. The paper does not say how the three shares
  of kernels split into isotropic and anisotropic ones, nor how much is resized: both are as in ``upsr``. We are not
  sure of the sizes of the final sinc filter; they are those of the other kernels.
- ``resshift``: ResShift (NeurIPS 2023, arXiv:2307.12348) says that it follows Real-ESRGAN. UPSR's configuration stems
  from ResShift's, so the numbers are those of ``upsr``, with the second order in half of the samples: that
  configuration says so, though UPSR's code never reads it. We do not know whether ResShift's runs did.
- ``mild``: our own, for photos from the web.
- ``bicubic``: the antialiased reduction alone.

The cut-offs of sinc filters, from pi/3 (pi/5 for large kernels) to pi, and drawing half of the generalised betas below
1 are our choice; none of the papers says so.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

# Here, as this module needs no torch: the command line reads the presets before it is imported.
KERNEL_KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
RESIZE_MODES = ("area", "bilinear", "bicubic")


def _check_probs(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{type(config).__name__}.{name} must lie in [0,1], got {value}")


def _check_range(config: object, name: str, lowest: float, highest: float = math.inf) -> None:
    low, high = getattr(config, name)
    if not lowest <= low <= high <= highest:
        raise ValueError(
            f"{type(config).__name__}.{name} must be (low, high) "
            f"with {lowest:g} <= low <= high <= {highest:g}, got ({low}, {high})"
        )


@dataclass(frozen=True)
class BlurConfig:
    """Random blur; sizes and sigmas are in pixels of the image that is blurred."""

    prob: float = 1.0
    kernel_size: tuple[int, int] = (3, 19)
    """Smallest and largest size, both odd and included; uniform over the odd sizes."""
    kind_probs: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """In the order of `KERNEL_KINDS`; used where no sinc kernel is drawn."""
    sigma: tuple[float, float] = (0.2, 3.0)
    beta_generalized: tuple[float, float] = (0.5, 4.0)
    """Half of the draws lie below 1, half above."""
    beta_plateau: tuple[float, float] = (1.0, 2.0)
    sinc_prob: float = 0.1
    sinc_cutoff: tuple[float, float] = (math.pi / 3, math.pi)
    """Radians per pixel, for kernels smaller than 13."""
    sinc_cutoff_large: tuple[float, float] = (math.pi / 5, math.pi)
    """For kernels from 13 pixels on, wide enough to hold the slower ripple."""

    def __post_init__(self) -> None:
        _check_probs(self, "prob", "sinc_prob")
        _check_range(self, "kernel_size", 1)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(f"BlurConfig.kernel_size must hold odd numbers, got {self.kernel_size}")
        if len(self.kind_probs) != len(KERNEL_KINDS) or abs(sum(self.kind_probs) - 1) > 1e-6:
            raise ValueError(
                f"BlurConfig.kind_probs needs {len(KERNEL_KINDS)} numbers that sum to 1 "
                f"({', '.join(KERNEL_KINDS)}), got {self.kind_probs}"
            )
        _check_range(self, "sigma", 1e-3)
        for name in ("beta_generalized", "beta_plateau"):
            _check_range(self, name, 1e-3)
        for name in ("sinc_cutoff", "sinc_cutoff_large"):
            _check_range(self, name, 1e-3, math.pi)


@dataclass(frozen=True)
class ResizeConfig:
    """Random resize: enlarge, shrink or keep, by a factor relative to the stage's reference size."""

    up_down_keep_probs: tuple[float, float, float] = (0.2, 0.7, 0.1)
    factor: tuple[float, float] = (0.15, 1.5)
    """Shrinking draws from [low, 1], enlarging from [1, high]."""
    modes: tuple[str, ...] = RESIZE_MODES
    antialias: bool = False
    """Prefilter bilinear and bicubic when shrinking, as image editors do. "area" always averages."""

    def __post_init__(self) -> None:
        if len(self.up_down_keep_probs) != 3 or abs(sum(self.up_down_keep_probs) - 1) > 1e-6:
            raise ValueError(
                f"ResizeConfig.up_down_keep_probs needs three numbers that sum to 1, got {self.up_down_keep_probs}"
            )
        _check_range(self, "factor", 1e-3)
        if not self.factor[0] <= 1 <= self.factor[1]:
            raise ValueError(f"ResizeConfig.factor must span 1, got {self.factor}")
        if not self.modes or any(mode not in RESIZE_MODES for mode in self.modes):
            raise ValueError(f"ResizeConfig.modes must be some of {RESIZE_MODES}, got {self.modes}")


@dataclass(frozen=True)
class NoiseConfig:
    """Gaussian or Poisson noise."""

    prob: float = 1.0
    gaussian_prob: float = 0.5
    """Poisson otherwise."""
    sigma: tuple[float, float] = (1.0, 30.0)
    """Standard deviation of the Gaussian, in levels of 255."""
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    """Factor on the deviation of a Poisson draw at the image's own number of levels."""
    gray_prob: float = 0.4
    """Probability that the three channels share one noise field."""

    def __post_init__(self) -> None:
        _check_probs(self, "prob", "gaussian_prob", "gray_prob")
        _check_range(self, "sigma", 0)
        _check_range(self, "poisson_scale", 0)


@dataclass(frozen=True)
class JPEGConfig:
    """JPEG at a random quality, both ends included."""

    prob: float = 1.0
    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        _check_probs(self, "prob")
        _check_range(self, "quality", 1, 100)


@dataclass(frozen=True)
class FinalSincConfig:
    """Sinc filter after the resize to the LR size: ringing, overshoot."""

    prob: float = 0.8
    kernel_size: tuple[int, int] = (3, 19)
    cutoff: tuple[float, float] = (math.pi / 3, math.pi)

    def __post_init__(self) -> None:
        _check_probs(self, "prob")
        _check_range(self, "kernel_size", 1)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(f"FinalSincConfig.kernel_size must hold odd numbers, got {self.kernel_size}")
        _check_range(self, "cutoff", 1e-3, math.pi)


@dataclass(frozen=True)
class StageConfig:
    """One order of the degradation: blur, resize, noise, JPEG."""

    blur: BlurConfig = field(default_factory=BlurConfig)
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    jpeg: JPEGConfig = field(default_factory=JPEGConfig)


_PUBLISHED_SECOND = StageConfig(
    blur=BlurConfig(prob=0.8, kernel_size=(3, 13), sigma=(0.2, 1.5)),
    resize=ResizeConfig(up_down_keep_probs=(0.3, 0.4, 0.3), factor=(0.3, 1.2)),
    noise=NoiseConfig(sigma=(1.0, 25.0), poisson_scale=(0.05, 2.5)),
)


@dataclass(frozen=True)
class DegradationConfig:
    """HR -> LR. The defaults are those of UPSR's published runs, the preset ``upsr``.

    `first` works at the HR size. `second.blur`, `.resize` (relative to HR / scale) and `.noise` follow with
    `second_order_prob`. The end always runs, in either order: [resize to HR / scale, `final_sinc`] and
    `second.jpeg`.
    """

    bicubic_prob: float = 0.0
    """Probability that a sample is a plain antialiased bicubic reduction and nothing else."""
    first: StageConfig = field(default_factory=StageConfig)
    second_order_prob: float = 1.0
    second: StageConfig = field(default_factory=lambda: _PUBLISHED_SECOND)
    final_sinc: FinalSincConfig = field(default_factory=FinalSincConfig)

    def __post_init__(self) -> None:
        _check_probs(self, "bicubic_prob", "second_order_prob")


_UPSR = DegradationConfig()
_REAL_ESRGAN_SIZES = (7, 21)
_REAL_ESRGAN = DegradationConfig(
    first=dataclasses.replace(_UPSR.first, blur=BlurConfig(kernel_size=_REAL_ESRGAN_SIZES)),
    second=dataclasses.replace(
        _UPSR.second, blur=dataclasses.replace(_UPSR.second.blur, kernel_size=_REAL_ESRGAN_SIZES)
    ),
    final_sinc=FinalSincConfig(kernel_size=_REAL_ESRGAN_SIZES),
)
_KEEP = ResizeConfig(up_down_keep_probs=(0.0, 0.0, 1.0), factor=(1.0, 1.0), antialias=True)
# Light blur, an antialiased reduction (the second stage keeps HR / scale), then noise and JPEG on the LR.
_MILD = DegradationConfig(
    bicubic_prob=0.4,
    first=StageConfig(
        blur=BlurConfig(kernel_size=(7, 7), kind_probs=(0.6, 0.4, 0, 0, 0, 0), sigma=(0.2, 1.0), sinc_prob=0.0),
        resize=_KEEP,
        noise=NoiseConfig(prob=0.0),
        jpeg=JPEGConfig(prob=0.0),
    ),
    second=StageConfig(
        blur=BlurConfig(prob=0.0),
        resize=_KEEP,
        noise=NoiseConfig(prob=0.6, gaussian_prob=1.0, sigma=(1.0, 15.0)),
        jpeg=JPEGConfig(prob=0.8, quality=(70, 95)),
    ),
    final_sinc=FinalSincConfig(prob=0.0),
)
# More of the same: old web photos and high ISO.
_MODERATE = dataclasses.replace(
    _MILD,
    bicubic_prob=0.2,
    first=dataclasses.replace(_MILD.first, blur=dataclasses.replace(_MILD.first.blur, sigma=(0.2, 1.6))),
    second=dataclasses.replace(
        _MILD.second,
        noise=NoiseConfig(prob=0.85, gaussian_prob=0.8, sigma=(1.0, 22.0)),
        jpeg=JPEGConfig(prob=0.8, quality=(40, 95)),
    ),
)

DEGRADATION_PRESETS: dict[str, DegradationConfig] = {
    "upsr": _UPSR,
    "real-esrgan": _REAL_ESRGAN,
    "resshift": dataclasses.replace(_UPSR, second_order_prob=0.5),
    "mild": _MILD,
    "moderate": _MODERATE,
    "bicubic": dataclasses.replace(_MILD, bicubic_prob=1.0),
}
