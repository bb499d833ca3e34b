"""Cutting an image into overlapping tiles, running a network over them, and blending the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import torch
from diffusers.utils import logging

from .memory import empty_cache, is_out_of_memory

logger = logging.get_logger(__name__)


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
        """Rows and columns of the tile in an image of ``scale`` times the LR size."""
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


Chunk = Sequence[tuple[int, Tile]]
"""Tiles for one call of a network, each with its image's index in the batch."""

Wanted = Callable[[int, Tile], bool]
"""Whether a network is to run on a tile of the image with this index."""


@dataclass(frozen=True)
class Tiling:
    """The tiles and calls by which a network goes over an LR image.

    Attributes:
        height, width: of the LR image.
        tile_size: largest side of a tile in LR pixels.
        overlap: LR pixels that neighbours share at least.
        unit: the sides of tiles are multiples of it.
        batch_size: tiles per call.
        one_size: every tile has the side ``tile_size`` (or the image's, if smaller) and every call ``batch_size``
            tiles, even where fewer pixels would do, since a compiled network is compiled again for each shape.
    """

    height: int
    width: int
    tile_size: int
    overlap: int
    unit: int
    batch_size: int = 1
    one_size: bool = False

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the tiles."""
        if self.one_size:
            return min(self.height, self.tile_size), min(self.width, self.tile_size)
        height, width = (even_side(n, self.tile_size, self.overlap, self.unit) for n in (self.height, self.width))
        return height, width

    def items(self, images: int) -> Chunk:
        """All tiles of ``images`` images."""
        tiles = plan_tiles(self.height, self.width, self.sides, self.overlap)
        return [(index, tile) for index in range(images) for tile in tiles]

    def chunks(self, images: int, wanted: Wanted | None = None) -> list[Chunk]:
        """The calls that ``images`` images take, or those of their tiles that are wanted."""
        items = [item for item in self.items(images) if wanted is None or wanted(*item)]
        return [items[start : start + self.batch_size] for start in range(0, len(items), self.batch_size)]

    def filled(self, chunk: Chunk) -> Chunk:
        """The tiles to call the network on for some of `chunks`: with ``one_size``, the last one several times."""
        return [*chunk, *[chunk[-1]] * (self.batch_size - len(chunk))] if self.one_size else chunk

    def smaller(self) -> Tiling | None:
        """The next tiling that needs less memory: one tile per call, then tiles of half the side; None at the end."""
        if self.batch_size > 1:
            return replace(self, batch_size=1)
        half = -(-max(self.sides) // (2 * self.unit)) * self.unit
        return replace(self, tile_size=half) if self.overlap < half < self.tile_size else None

    def __str__(self) -> str:
        tiles = "tiles" if self.batch_size == 1 else f"{self.batch_size} tiles at once"
        return f"{tiles} of {self.sides[1]}x{self.sides[0]} LR pixels"


class _Bar(Protocol):
    total: float | None

    def update(self, n: float = 1) -> bool | None: ...


class CallCounter:
    """Counts calls of networks, for a progress bar and a listener.

    Args:
        bar: tqdm's or one like it.
        listener: called with the calls done and the calls in all, after each; what it raises ends the run.
    """

    def __init__(self, bar: _Bar, listener: Callable[[int, int], None] | None = None):
        self._bar, self._listener = bar, listener
        self._done = self._total = 0

    def expect(self, calls: int) -> None:
        """Set how many calls are left."""
        self._bar.total = self._total = self._done + calls

    def called(self) -> None:
        """Count one call."""
        self._done += 1
        self._bar.update()
        if self._listener is not None:
            self._listener(self._done, self._total)


def run_on_tiles(
    call: Callable[[Chunk], torch.Tensor],
    out: torch.Tensor,
    tiling: Tiling,
    progress: CallCounter,
    *,
    scale: int,
    calls_after: Callable[[Tiling], int],
    wanted: Wanted | None = None,
    kept: torch.Tensor | None = None,
) -> Tiling:
    """Fill ``out`` with the blended results of all tiles; with smaller tiles where the memory is too little.

    Args:
        call: returns the results of some tiles, (len(chunk),C,scale*h,scale*w) float32.
        out: (B,C,scale*height,scale*width); overwritten.
        tiling: the tiles to begin with.
        progress: counts the calls.
        scale: size of the results in units of the tiles.
        calls_after: how many calls follow after these, with such a tiling.
        wanted: the tiles to run on, by default all.
        kept: values, shaped as ``out``, for the tiles that are not wanted; required if there are any.

    Returns:
        The tiling that worked, for the next time.

    Raises:
        RuntimeError, MemoryError: out of memory with the smallest tiles, too.
    """
    while True:
        try:
            out.zero_()
            chunks = tiling.chunks(len(out), wanted)
            progress.expect(len(chunks) + calls_after(tiling))
            if kept is not None and wanted is not None:
                for index, tile in tiling.items(len(out)):
                    if not wanted(index, tile):
                        tile.add(out[index], kept[(index, ..., *tile.slices(scale))], scale)
            for chunk in chunks:
                results = call(tiling.filled(chunk))[: len(chunk)]
                for (index, tile), result in zip(chunk, results, strict=True):
                    tile.add(out[index], result, scale)
                progress.called()
            return tiling
        except (RuntimeError, MemoryError) as error:
            smaller = tiling.smaller()
            if smaller is None or not is_out_of_memory(error):
                raise
        # Not inside the handler: the traceback keeps the failed call's tensors alive.
        empty_cache(out.device)
        logger.warning("Out of memory with %s; going on with %s.", tiling, smaller)
        tiling = smaller


def plan_tiles(height: int, width: int, tile_size: int | tuple[int, int], overlap: int) -> list[Tile]:
    """Cover an image with tiles, row by row.

    All tiles have one size: ``tile_size``, or the image's own where that is less. Neighbours start
    ``tile_size - overlap`` apart; the last ones are moved inwards to end with the image and overlap more. So
    all positions are multiples of every common divisor of height, width, tile_size and overlap.

    Args:
        height, width: size of the image.
        tile_size: side of a tile, or its height and width.
        overlap: pixels that neighbours share at least, >= 0; with 0 there is no blending.

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
        overlap: samples that neighbours share at least, below ``tile_size``.
        unit: the side is a multiple of it.
    """
    if length <= tile_size:
        return length
    count = _tiles_in(length, tile_size, overlap)
    return min(tile_size, math.ceil((length + (count - 1) * overlap) / count / unit) * unit)


def _line_starts(length: int, tile_size: int, overlap: int) -> tuple[tuple[int, ...], int]:
    """First samples of the tiles of a line of ``length`` samples, and the length of each."""
    if length <= tile_size:
        return (0,), length
    starts = range(_tiles_in(length, tile_size, overlap))
    return tuple(min(i * (tile_size - overlap), length - tile_size) for i in starts), tile_size


def _tiles_in(length: int, tile_size: int, overlap: int) -> int:
    """Number of tiles that a line of ``length`` samples needs, where it needs more than one."""
    return math.ceil((length - overlap) / (tile_size - overlap))


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
