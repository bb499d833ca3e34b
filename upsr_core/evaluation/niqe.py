"""NIQE (Mittal, Soundararajan and Bovik 2013): how far an image's statistics are from those of good photos.

Two scales of locally normalised luma, in blocks of 96 (48) pixels; 18 numbers of each block and scale from fits of
generalised Gaussians to it and to products of neighbours; the distance of their mean and covariance to the
parameters of pristine photos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .columns import NIQE_PARAMETERS
from .metrics import luma

BLOCK = 96
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
# Shapes that a fit may have, and the ratio E|x|^2 / E x^2 of each.
_SHAPES = torch.arange(0.2, 10.0005, 0.001, dtype=torch.float64)


@dataclass(frozen=True)
class NIQE:
    """The metric with its parameters.

    Attributes:
        mean: of pristine photos, (36,) float64.
        covariance: (36,36) float64.
        window: Gaussian weights of the local mean, (7,7) float64.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    window: torch.Tensor

    @classmethod
    def load(cls, path: Path) -> NIQE:
        """Read ``niqe_pris_params.npz``.

        Raises:
            ValueError: it is no such file.
        """
        try:
            with np.load(path) as file:
                keys = ("mu_pris_param", "cov_pris_param", "gaussian_window")
                mean, covariance, window = (torch.from_numpy(np.array(file[key], np.float64)) for key in keys)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: holds no NIQE parameters; get {NIQE_PARAMETERS}") from error
        return cls(mean.flatten(), covariance, window)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Distance of each image (B,3,H,W) in [0,1] to pristine photos: (B,), smaller is better.

        Whole levels of Y. Incomplete blocks at the right and the bottom are cut off, and blocks of one colour, which
        have no shape. NaN for an image of fewer than two blocks, which has no covariance.
        """
        return torch.stack([self._distance(y) for y in luma(image).round()])

    def _distance(self, y: torch.Tensor) -> torch.Tensor:
        rows, columns = (side // BLOCK for side in y.shape)
        if rows * columns < 2:
            return torch.tensor(math.nan, dtype=torch.float64)
        y = y[: rows * BLOCK, : columns * BLOCK]
        features = torch.cat([self._features(y, BLOCK), self._features(_halved(y), BLOCK // 2)], dim=1)
        features = features[features.isfinite().all(dim=1)]
        if len(features) < 2:
            return torch.tensor(math.nan, dtype=torch.float64)
        covariance = torch.cov(features.T)
        difference = self.mean - features.mean(dim=0)
        return (difference @ torch.linalg.pinv((self.covariance + covariance) / 2) @ difference).sqrt()

    def _features(self, y: torch.Tensor, block: int) -> torch.Tensor:
        """(blocks,18)."""
        kernel = self.window[None, None]
        margin = len(self.window) // 2
        padded = F.pad(torch.stack([y, y * y])[:, None], [margin] * 4, mode="replicate")
        mean = F.conv2d(padded[:1], kernel)[0, 0]
        # Of y - mean with the mean of each place, as the authors have it: E y^2 - mean^2.
        deviation = (F.conv2d(padded[1:], kernel)[0, 0] - mean * mean).abs().sqrt()
        normalised = (y - mean) / (deviation + 1)
        blocks = normalised.unfold(0, block, block).unfold(1, block, block).reshape(-1, block, block)
        shape, left, right, _ = _fit(blocks)
        numbers = [shape, (left + right) / 2]
        for shift in _NEIGHBOURS:
            shape, left, right, mean_of_fit = _fit(blocks * blocks.roll(shift, dims=(1, 2)))
            numbers += [shape, mean_of_fit, left, right]
        return torch.stack(numbers, dim=1)


def _gamma(x: torch.Tensor) -> torch.Tensor:
    return torch.lgamma(x).exp()


def _moment_ratio(shape: torch.Tensor) -> torch.Tensor:
    """(E|x|)^2 / E x^2 of a generalised Gaussian."""
    return _gamma(2 / shape) ** 2 / (_gamma(1 / shape) * _gamma(3 / shape))


_RATIOS = _moment_ratio(_SHAPES)


def _fit(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An asymmetric generalised Gaussian by its moments, for each block (N,h,w): shape, both scales and the mean."""
    x = blocks.flatten(1)

    def side(mask: torch.Tensor) -> torch.Tensor:
        return ((x * x * mask).sum(dim=1) / mask.sum(dim=1)).sqrt()

    left, right = side(x < 0), side(x > 0)
    skew = left / right
    ratio = x.abs().mean(dim=1) ** 2 / (x * x).mean(dim=1)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _SHAPES[(_RATIOS - ratio[:, None]).abs().argmin(dim=1)]
    factor = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
    left, right = left * factor, right * factor
    return shape, left, right, (right - left) * _gamma(2 / shape) / _gamma(1 / shape)


def _halved(y: torch.Tensor) -> torch.Tensor:
    """Antialiased bicubic reduction by 2, the edges mirrored with the last row repeated."""
    margin = 8
    for dim in (0, 1):
        head, tail = y.narrow(dim, 0, margin).flip(dim), y.narrow(dim, y.shape[dim] - margin, margin).flip(dim)
        y = torch.cat([head, y, tail], dim=dim)
    half = F.interpolate(y[None, None], scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False)
    return half[0, 0, margin // 2 : -margin // 2, margin // 2 : -margin // 2]
