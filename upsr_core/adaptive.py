"""Fewer steps where the image is calm: on which tiles the denoiser runs in which step."""

from __future__ import annotations

import math
from functools import partial

import torch

from .scheduling_unw import spread_steps
from .tiling import Tile, Tiling


class StepPlan:
    """The steps of the reverse process in which the denoiser runs on a tile.

    In between, a tile keeps its last estimate of x_0. Successive deterministic steps with one estimate equal a single
    longer step. So a tile with n of N steps ends as in a run of n steps chosen by `UNWScheduler.set_timesteps`.

    Args:
        steps: N, those of the run.
        psi: uncertainty (B,3,s*h,s*w) of the padded image in units of the [0,1] range; None where it is not known yet.
        full_at: mean uncertainty from which on a tile runs in all steps, above 0; with less it runs in fewer, in
            proportion, and in at least one. None: all tiles run in all steps.
        scale: super-resolution factor s.
    """

    def __init__(self, steps: int, psi: torch.Tensor | None = None, full_at: float | None = None, scale: int = 1):
        self.steps = steps
        self._full_at = full_at
        self._psi = None
        if psi is not None and full_at is not None:
            self._psi = torch.nn.functional.avg_pool2d(psi.mean(dim=1, keepdim=True), scale)[:, 0].cpu()
        self._counts: dict[tuple[int, Tile], int] = {}

    @property
    def is_adaptive(self) -> bool:
        """Whether some tiles may run in fewer steps than others."""
        return self._psi is not None

    def count(self, image: int, tile: Tile) -> int:
        """Steps in which the denoiser runs on a tile of one of the images, 1..N."""
        if self._psi is None or self._full_at is None:
            return self.steps
        if (image, tile) not in self._counts:
            share = self._psi[(image, *tile.slices())].mean().item() / self._full_at
            self._counts[image, tile] = max(1, math.ceil(self.steps * min(1.0, share)))
        return self._counts[image, tile]

    def runs(self, step: int, image: int, tile: Tile) -> bool:
        """Whether the denoiser runs on a tile in a step, counted from 0, the noisiest."""
        return self.steps - 1 - step in spread_steps(self.steps, self.count(image, tile))

    def calls_after(self, step: int, images: int, tiling: Tiling) -> int:
        """Calls of the denoiser in the steps after this one; -1 stands for before the first."""
        later = range(step + 1, self.steps)
        return sum(len(tiling.chunks(images, partial(self.runs, other))) for other in later)
