"""Cutting an image into overlapping tiles and blending them back: which tiles, which weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Tile:
    """A rectangle of the LR image, rows y0..y1-1 and columns x0..x1-1, and its part in the blend.

    Results of the tiles of one plan, weighted by `weights`, add up to the whole image: at each pixel the
    weights sum to 1, and towards a neighbouring tile they fall smoothly to 0.
    """

    y0: int
    y1: int
    x0: int
    x1: int
    row_starts: tuple[int, ...] = field(repr=False)
    column_starts: tuple[int, ...] = field(repr=False)

    def slices(self, scale: int = 1) -> tuple[slice, slice]:
        """Where the tile lies in an image of ``scale`` times the LR size: rows, columns."""
        return slice(scale * self.y0, scale * self.y1), slice(scale * self.x0, scale * self.x1)

    def weights(self, scale: int = 1) -> torch.Tensor:
        """Blend weights at ``scale`` times the LR size: (scale*(y1-y0), scale*(x1-x0)), float32."""
        rows = _line_weights(self.row_starts, self.y1 - self.y0, scale)
        columns = _line_weights(self.column_starts, self.x1 - self.x0, scale)
        return rows[self.row_starts.index(self.y0)][:, None] * columns[self.column_starts.index(self.x0)]

    def add(self, image: torch.Tensor, result: torch.Tensor, scale: int = 1) -> None:
        """Add the tile's weighted ``result`` to its place in ``image``, in place.

        Args:
            image: (...,scale*height,scale*width), zeros before the first tile.
            result: (...,scale*(y1-y0),scale*(x1-x0)), same type and device.
            scale: size of both in units of the LR image the tiles were planned for.
        """
        rows, columns = self.slices(scale)
        image[..., rows, columns].addcmul_(result, self.weights(scale).to(image))


def plan_tiles(height: int, width: int, tile_size: int | tuple[int, int], overlap: int) -> list[Tile]:
    """Cover an image with tiles, row by row.

    All tiles have one size: ``tile_size``, or the image's own where that is less. Neighbours start
    ``tile_size - overlap`` apart; the last ones are moved inwards to end with the image and overlap more. So
    all positions are multiples of whatever height, width, tile_size and overlap are multiples of.

    Args:
        height, width: size of the image.
        tile_size: side of a tile, or its height and width.
        overlap: what neighbours share at least, >= 0; with 0 there is no blending.

    Raises:
        ValueError: if a size is below 1, or the image needs several tiles and overlap is not below tile_size.
    """
    sides = (tile_size, tile_size) if isinstance(tile_size, int) else tile_size
    for name, value in {"height": height, "width": width, "tile_size": min(sides)}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if overlap < 0:
        raise ValueError(f"tile overlap must not be negative, got {overlap}")
    for side, length in zip(sides, (height, width), strict=True):
        if overlap >= side < length:
            raise ValueError(f"tile overlap {overlap} must be smaller than the tile size {side}")
    row_starts, tile_height = _line_starts(height, sides[0], overlap)
    column_starts, tile_width = _line_starts(width, sides[1], overlap)
    return [
        Tile(y, y + tile_height, x, x + tile_width, row_starts, column_starts)
        for y in row_starts
        for x in column_starts
    ]


def even_side(length: int, tile_size: int, overlap: int, unit: int) -> int:
    """The smallest side that needs no more tiles for a line of ``length`` samples than ``tile_size`` does.

    The last tiles of a plan are moved inwards; with smaller tiles they overlap less, and less is computed twice.

    Args:
        length: of the line.
        tile_size: the largest side allowed, a multiple of ``unit`` or not less than ``length``.
        overlap: what neighbours share at least, below ``tile_size``.
        unit: what the side is to be a multiple of.
    """
    if length <= tile_size:
        return length
    count = math.ceil((length - overlap) / (tile_size - overlap))
    return min(tile_size, math.ceil((length + (count - 1) * overlap) / count / unit) * unit)


def _line_starts(length: int, tile_size: int, overlap: int) -> tuple[tuple[int, ...], int]:
    """Where the tiles of a line of ``length`` samples start, and how long each is."""
    if length <= tile_size:
        return (0,), length
    count = math.ceil((length - overlap) / (tile_size - overlap))
    return tuple(min(i * (tile_size - overlap), length - tile_size) for i in range(count)), tile_size


@lru_cache(maxsize=64)
def _line_weights(starts: tuple[int, ...], tile_size: int, scale: int) -> tuple[torch.Tensor, ...]:
    """Blend weights of each tile of a line; cached, so not to be written to."""
    size = scale * tile_size
    windows = []
    for i, start in enumerate(starts):
        window = torch.ones(size, dtype=torch.float64)
        if i > 0:
            shared = scale * (starts[i - 1] + tile_size - start)
            window[:shared] *= _ramp(shared)
        if i + 1 < len(starts):
            shared = scale * (start + tile_size - starts[i + 1])
            window[size - shared :] *= _ramp(shared).flip(0)
        windows.append(window)
    # Two overlapping ramps sum to 1 already; where three or more tiles meet they must be made to.
    total = torch.zeros(scale * (starts[-1] + tile_size), dtype=torch.float64)
    for start, window in zip(starts, windows, strict=True):
        total[scale * start : scale * start + size] += window
    return tuple(
        (window / total[scale * start : scale * start + size]).float()
        for start, window in zip(starts, windows, strict=True)
    )


def _ramp(length: int) -> torch.Tensor:
    """Raised cosine from 0 to 1, sampled at pixel centres; itself plus its mirror image is 1."""
    return (1 - torch.cos(math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length)) / 2
