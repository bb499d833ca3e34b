"""The photos of a study: held-out ones, whose LR versions are made as `upsr evaluate` makes them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from upsr_core import UPSRPipeline
from upsr_core.degradation.config import DEGRADATION_PRESETS
from upsr_core.evaluation.datasets import check_sizes, find_samples
from upsr_core.evaluation.run import Plan
from upsr_core.resampling import upsample


@dataclass(frozen=True)
class Pair:
    """A photo and what the model sees of it, all (1,3,H,W) in [0,1]."""

    name: str
    lr: torch.Tensor
    hr: torch.Tensor

    def upsampled(self, scale: int) -> torch.Tensor:
        """Bicubic Y, clipped."""
        return upsample(self.lr, scale).clamp(0, 1)


def add_photo_arguments(parser: argparse.ArgumentParser, limit: int | None = None) -> None:
    """Which photos, and what becomes of them."""
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos not trained on")
    parser.add_argument("--preset", default="mild", choices=sorted(DEGRADATION_PRESETS), help="default mild")
    parser.add_argument("--crop", type=int, default=256, help="side of the centre crop; default 256")
    parser.add_argument("--limit", type=int, default=limit, help=f"at most so many photos; default {limit or 'all'}")
    parser.add_argument("--seed", type=int, default=0, help="of degradations and noise; default 0")


def load_pairs(args: argparse.Namespace, scale: int) -> Iterator[Pair]:
    """The photos that `add_photo_arguments` describes, one after the other.

    Raises:
        ValueError: none are there, or one is too small.
    """
    samples = find_samples(args.photos, None, scale, degraded=True)
    count = min(args.limit or len(samples), len(samples))
    samples = [samples[i * len(samples) // count] for i in range(count)]
    check_sizes(samples, scale, args.crop)
    plan = Plan(args.photos, samples, [args.preset], [], [], [args.seed], scale, args.crop, torch.device("cpu"))
    for sample in samples:
        hr = plan.read_hr(sample)
        assert hr is not None
        yield Pair(sample.name, plan.read_lr(args.preset, args.seed, sample), hr)


def described(args: argparse.Namespace, count: int) -> str:
    """The photos in words."""
    return f"{count} photos, centre {args.crop}x{args.crop}, preset `{args.preset}`, seed {args.seed}"


def patch_means(values: torch.Tensor, side: int) -> torch.Tensor:
    """Means over the channels and over squares of ``side`` pixels: (1,C,H,W) to (N,), row by row."""
    return torch.nn.functional.avg_pool2d(values.mean(dim=1, keepdim=True), side).flatten()


def upscaled(pipe: UPSRPipeline, lr: torch.Tensor, seed: int, weight: float | None = None) -> torch.Tensor:
    """The LR image upscaled untiled, with the scheduler's noise weight or a constant one, by the paper's sampler."""
    size = [pipe.scale * side for side in lr.shape[-2:]]
    plane = None if weight is None else torch.full(size, weight)
    images, _ = pipe(
        lr,
        generator=torch.Generator().manual_seed(seed),
        noise_weight=plane,
        flat_threshold=0.0,
        tile_size=0,
        output_type="pt",
        return_dict=False,
    )
    return images
