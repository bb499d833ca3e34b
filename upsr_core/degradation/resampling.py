"""Resizing as a product with two matrices per image, so that each image of a batch has its own size and method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from upsr_core.degradation.ragged import RaggedImages, Size, canvas, to_device


@dataclass(frozen=True)
class Resampling:
    """Resizing of one image.

    Attributes:
        size: height and width of the result.
        mode: one of `config.RESIZE_MODES`.
        antialias: bilinear and bicubic average over the area of a shrunken pixel, as in Pillow; ``area`` always does.
    """

    size: Size
    mode: str
    antialias: bool = False


def resize(images: RaggedImages, resamplings: Sequence[Resampling | None]) -> RaggedImages:
    """Each image with its own `Resampling`; None, or the size it has, changes nothing.

    The results are those of `torch.nn.functional.interpolate` with ``align_corners=False``, to rounding error.
    """
    sizes = tuple(r.size if r else own for r, own in zip(resamplings, images.sizes, strict=True))
    if sizes == images.sizes:
        return images
    methods = [(r.mode, r.antialias) if r else ("area", False) for r in resamplings]
    vertical = _matrices(images, sizes, methods, axis=0)
    square = all(height == width for height, width in (*images.sizes, *sizes))
    horizontal = vertical if square else _matrices(images, sizes, methods, axis=1)
    return RaggedImages(vertical[:, None] @ (images.pixels @ horizontal.mT[:, None]), sizes)


def _matrices(
    images: RaggedImages, sizes: Sequence[Size], methods: Sequence[tuple[str, bool]], axis: int
) -> torch.Tensor:
    """(B,rows,columns) that take an axis of the old canvas to that of the new one; zero outside of the images."""
    device = images.pixels.device
    lengths = to_device([(own[axis], new[axis]) for own, new in zip(images.sizes, sizes, strict=True)], device)
    rows, columns = canvas(sizes)[axis], images.pixels.shape[2 + axis]
    matrices: torch.Tensor | None = None
    for method in sorted(set(methods)):
        made = interpolation_matrices(lengths[:, 0], lengths[:, 1], rows, columns, *method)
        if matrices is None:
            matrices = made
        else:
            chosen = to_device([other == method for other in methods], device)
            matrices = torch.where(chosen[:, None, None], made, matrices)
    assert matrices is not None
    return matrices


def interpolation_matrices(
    source: torch.Tensor, target: torch.Tensor, rows: int, columns: int, mode: str, antialias: bool
) -> torch.Tensor:
    """Weights (B,rows,columns), float32, that turn ``source`` pixels of a line into ``target`` pixels.

    Pixel centres lie at i + 0.5 and borders are replicated. Bicubic is the cubic convolution of Keys (1981)
    with a = -0.75 as in OpenCV, antialiased with a = -0.5 as in Pillow.

    Args:
        source, target: (B,) int64, lengths in pixels.
        rows, columns: the largest target and source, or more; what lies beyond is zero.
        mode: one of `config.RESIZE_MODES`.
        antialias: see `Resampling`.
    """
    source, target = source[:, None, None], target[:, None, None]
    row = torch.arange(rows, device=source.device)[:, None]
    column = torch.arange(columns, device=source.device)
    if mode == "area":
        first, end = row * source // target, -(-(row + 1) * source // target)
        weights = ((column >= first) & (column < end)) / (end - first)
    elif antialias:
        stretch = (source / target).clamp(min=1)
        centre = (2 * row + 1) * source / (2 * target)
        weights = _filter(mode, -0.5)((column + 0.5 - centre) / stretch) * (column < source)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-6)
    else:
        # In whole numbers, as a float32 position would be inexact by the width of the image.
        position = (2 * row + 1) * source - target
        base = position // (2 * target)
        fraction = (position - base * 2 * target) / (2 * target)
        weights = torch.zeros((), device=source.device)
        for offset in range(0, 2) if mode == "bilinear" else range(-1, 3):
            tap = torch.minimum((base + offset).clamp(min=0), source - 1)
            weights = weights + torch.where(tap == column, _filter(mode, -0.75)(fraction - offset), 0)
    return torch.where(row < target, weights, 0)


def _filter(mode: str, a: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Weight of a pixel at a signed distance in pixels."""

    def triangle(distance: torch.Tensor) -> torch.Tensor:
        return (1 - distance.abs()).clamp(min=0)

    def cubic(distance: torch.Tensor) -> torch.Tensor:
        x = distance.abs()
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        return torch.where(x < 1, near, torch.where(x < 2, far, 0))

    return triangle if mode == "bilinear" else cubic
