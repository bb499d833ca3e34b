"""Running a network over an image tile by tile, and what is done where a tile fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from diffusers.utils import logging

from .memory import empty_cache, is_out_of_memory
from .models import ATDModel, UPSRUNet
from .tiling import Tile, even_side, plan_tiles

logger = logging.get_logger(__name__)

Chunk = Sequence[tuple[int, Tile]]
"""Tiles for one call of a network, each with its image's index in the batch."""


@dataclass(frozen=True)
class Tiling:
    """How a network is to go over an LR image.

    Attributes:
        height, width: of the LR image.
        tile_size: largest side of a tile in LR pixels.
        overlap: LR pixels that neighbours share at least.
        unit: what the sides of tiles are to be multiples of.
        batch_size: tiles per call.
    """

    height: int
    width: int
    tile_size: int
    overlap: int
    unit: int
    batch_size: int = 1

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the tiles."""
        height, width = (even_side(n, self.tile_size, self.overlap, self.unit) for n in (self.height, self.width))
        return height, width

    def chunks(self, images: int) -> list[Chunk]:
        """The calls for so many images."""
        tiles = plan_tiles(self.height, self.width, self.sides, self.overlap)
        items = [(index, tile) for index in range(images) for tile in tiles]
        return [items[start : start + self.batch_size] for start in range(0, len(items), self.batch_size)]

    def smaller(self) -> Tiling | None:
        """What to try with less memory: one tile per call, then tiles of half the side; None at the end."""
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


class Progress:
    """Counts calls of networks, for a progress bar and a listener.

    Args:
        bar: tqdm's or one like it.
        listener: called with the calls done and the calls in all, after each; what it raises ends the run.
    """

    def __init__(self, bar: _Bar, listener: Callable[[int, int], None] | None = None):
        self._bar, self._listener = bar, listener
        self._done = self._total = 0

    def expect(self, calls: int) -> None:
        """So many calls are left."""
        self._bar.total = self._total = self._done + calls

    def called(self) -> None:
        """One call more is done."""
        self._done += 1
        self._bar.update()
        if self._listener is not None:
            self._listener(self._done, self._total)


def run_on_tiles(
    call: Callable[[Chunk], torch.Tensor],
    out: torch.Tensor,
    tiling: Tiling,
    progress: Progress,
    *,
    scale: int,
    passes_left: int = 1,
    calls_after: int = 0,
) -> Tiling:
    """Fill ``out`` with the blended results of all tiles; with smaller tiles where the memory is too little.

    Args:
        call: gives the results of some tiles, (len(chunk),C,scale*h,scale*w) float32.
        out: (B,C,scale*height,scale*width); overwritten.
        tiling: the tiles to begin with.
        progress: is told of each call.
        scale: size of the results in units of the tiles.
        passes_left: how often the tiling is still to be run, this time included.
        calls_after: calls of other networks that follow.

    Returns:
        The tiling that worked, for the next time.

    Raises:
        RuntimeError, MemoryError: out of memory with the smallest tiles, too.
    """
    while True:
        try:
            out.zero_()
            chunks = tiling.chunks(len(out))
            progress.expect(passes_left * len(chunks) + calls_after)
            for chunk in chunks:
                for (index, tile), result in zip(chunk, call(chunk), strict=True):
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


def call_network(network: UPSRUNet | ATDModel, *inputs: torch.Tensor | int) -> torch.Tensor:
    """A network's output in float32; where half precision gives NaN or infinity, computed again in float32.

    Raises:
        ValueError: it is not finite in float32 either.
    """

    def cast(dtype: torch.dtype) -> list[torch.Tensor | int]:
        return [value.to(dtype) if isinstance(value, torch.Tensor) else value for value in inputs]

    output = network(*cast(network.dtype), return_dict=False)[0].float()
    # A look at one number per call, which on an accelerator waits for it; a call takes far longer than that.
    if output.isfinite().all():
        return output
    name = type(network).__name__
    if network.dtype != torch.float32:
        logger.warning("%s gave NaN or infinity in %s; this tile again in float32.", name, network.dtype)
        # Borrowed float32 weights: the network itself, which is the caller's, stays as it is.
        state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        call = torch.func.functional_call
        output = call(network, state, tuple(cast(torch.float32)), {"return_dict": False})[0]
        if output.isfinite().all():
            return output
    raise ValueError(f"{name} gives NaN or infinity in float32, too: its weights are damaged or not a UPSR model's")
