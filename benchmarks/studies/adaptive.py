"""Adaptive steps: what is saved, and what is lost, where calm tiles get fewer steps."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import load_model, markdown_table, model_name
from benchmarks.studies.charts import line_chart
from benchmarks.studies.findings import Findings
from benchmarks.studies.photos import add_photo_arguments, described, load_pairs
from upsr_core import UPSRPipeline
from upsr_core.evaluation.metrics import psnr
from upsr_core.evaluation.niqe import NIQE
from upsr_core.evaluation.st_lpips import STLPIPS
from upsr_core.loading import model_sha256

THRESHOLDS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
FIGURES = {"PSNR-Y, dB": ".2f", "NIQE": ".3f", "ST-LPIPS": ".4f"}


@torch.no_grad()
def adaptive(args: argparse.Namespace) -> Findings:
    """Time against PSNR-Y, NIQE and ST-LPIPS: fewer steps for calm tiles by threshold, and fewer steps for all."""
    pipe = load_model(args.model)
    niqe, distance = NIQE.load(args.niqe), STLPIPS("alex")
    most = pipe.scheduler.config.num_train_timesteps
    fewer: dict[str, dict[str, Any]] = {f"{n} steps for all": {"num_inference_steps": n} for n in range(most, 0, -1)}
    by_psi = {f"{value:g}": {"adaptive_steps": value, "num_inference_steps": most} for value in args.thresholds}
    found: dict[str, list[list[float]]] = {name: [] for name in [*fewer, *by_psi]}
    for pair in load_pairs(args, pipe.scale):
        sr = pipe.super_resolve(pair.lr)
        # Turn by turn, so that what else the machine does slows all of them alike.
        for name, options in {**fewer, **by_psi}.items():
            image, calls, seconds = _upscaled(pipe, pair.lr, sr, args, options)
            figures = psnr(image, pair.hr, pipe.scale), niqe(image), distance(2 * image - 1, 2 * pair.hr - 1)
            found[name].append([calls, seconds, *(value.item() for value in figures)])
    means = {name: torch.tensor(values, dtype=torch.float64).mean(0).tolist() for name, values in found.items()}
    whole = means[f"{most} steps for all"]
    rows = [
        [
            name,
            f"{calls:.1f}",
            f"{whole[0] / calls:.2f}",
            f"{whole[1] / seconds:.2f}",
            *(f"{value:{form}}" for value, form in zip(figures, FIGURES.values(), strict=True)),
        ]
        for name, (calls, seconds, *figures) in means.items()
    ]
    table = markdown_table(["all steps from psi =", "calls", "fewer calls", "faster", *FIGURES], rows)
    count = len(found[f"{most} steps for all"])
    words = (
        f"{described(args, count)}; {model_name(args.model)} (SHA-256 {model_sha256(pipe)[:12]}), tiles of {args.tile} "
        f"LR pixels with an overlap of {args.overlap}. Calls of the denoiser for a photo, one tile in each, and how "
        f"many times fewer than with all {most} steps; faster: by processor time without g, which runs once in any "
        "case. A tile whose mean uncertainty is below the value gets fewer steps, in proportion."
    )
    data = {"seed": args.seed, "model_sha256": model_sha256(pipe), "calls, seconds, figures": means}
    return Findings(f"{words}\n\n{table}", data, _charts(means, list(fewer), list(by_psi)))


def _upscaled(
    pipe: UPSRPipeline, lr: torch.Tensor, sr: torch.Tensor, args: argparse.Namespace, options: Mapping[str, Any]
) -> tuple[torch.Tensor, int, float]:
    """The image, the calls of the denoiser, and processor seconds."""
    calls: list[int] = []
    start = time.process_time()
    images, _ = pipe(
        lr, generator=torch.Generator().manual_seed(args.seed), sr=sr, tile_size=args.tile, tile_overlap=args.overlap,
        tile_batch_size=1, output_type="pt", return_dict=False, **options,
        callback_on_tile_end=lambda done, total: calls.append(done),
    )  # fmt: skip
    return images, len(calls), time.process_time() - start


def _charts(means: Mapping[str, list[float]], fewer: list[str], by_psi: list[str]) -> dict[str, str]:
    """NIQE and ST-LPIPS by calls, as a line for each way to save them, at the calls that thresholds took."""
    adaptive_points = sorted((means[name] for name in [*by_psi, fewer[0]]), key=lambda values: values[0])
    uniform_points = sorted((means[name] for name in fewer), key=lambda values: values[0])
    x = sorted({values[0] for values in adaptive_points})
    charts = {}
    for place, (title, end) in {3: ("NIQE", "-niqe.svg"), 4: ("ST-LPIPS", "-distance.svg")}.items():
        lines = {}
        for name, points in {"calm tiles": adaptive_points, "all tiles": uniform_points}.items():
            calls, values = ([point[column] for point in points] for column in (0, place))
            lines[name] = np.interp(x, calls, values).tolist()
        charts[end] = line_chart(x, lines, "calls of the denoiser for a photo", title)
    return charts


def add_adaptive_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `adaptive`."""
    add_photo_arguments(parser, limit=12)
    parser.add_argument("--model", help="model folder (default: bundled)")
    parser.add_argument("--niqe", type=Path, required=True, help="niqe_pris_params.npz")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS, help="values of adaptive_steps")
    parser.add_argument("--tile", type=int, default=32, help="of the LR image; default 32")
    parser.add_argument("--overlap", type=int, default=8, help="default 8")
