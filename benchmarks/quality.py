"""How good the results are on held-out photos, against bicubic interpolation and against the SR network g alone.

    python -m benchmarks.quality --photos FOLDER --out-md quality.md --out-json quality.json

Each photo is reduced in two ways: ``plain``, antialiased bicubic, and degraded by a preset of the trainer. PSNR and
SSIM are taken on Y of YCbCr (BT.601, studio range) of 8-bit values, without a border of as many pixels as the scale.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import (
    add_model_argument,
    add_threads_argument,
    degradation,
    load_model,
    markdown_table,
    model_name,
    upscale_each_way,
)
from trainer.data.crops import ValidationDataset
from trainer.data.sources.image_folders import FolderSource
from upsr_core import UPSRPipeline
from upsr_core.degradation.degrading import DEGRADATION_PRESETS
from upsr_core.evaluation.metrics import colour_shift, fine_detail_ratio, psnr, ssim
from upsr_core.pixels import quantise

METRICS = ("psnr", "ssim", "fine_detail", "grid", "shift_red", "shift_green", "shift_blue")


def grid_excess(image: torch.Tensor, period: int) -> torch.Tensor:
    """How much stronger gradients are at one place of a grid of ``period`` pixels than on average: (B,), 0 if none.

    Shows checkerboards and blocks that upsampling leaves behind; a photo has about none.

    Args:
        image: (B,3,H,W) in [0,1].
    """
    excess = []
    for dim in (2, 3):
        steps = quantise(image).diff(dim=dim).abs().mean(dim=(1, 5 - dim))
        phases = torch.stack([steps[:, phase::period].mean(dim=1) for phase in range(period)])
        excess.append(phases.amax(dim=0) / phases.mean(dim=0) - 1)
    return torch.stack(excess).amax(dim=0)


def scores(sr: torch.Tensor, hr: torch.Tensor, scale: int) -> dict[str, float]:
    """All METRICS of one image (1,3,H,W)."""
    values = [psnr(sr, hr, scale), ssim(sr, hr, scale), fine_detail_ratio(sr, hr), grid_excess(sr, scale)]
    return dict(zip(METRICS, [*(value.item() for value in values), *colour_shift(sr, hr)[0].tolist()], strict=True))


def evaluate(pipe: UPSRPipeline, photos: ValidationDataset, preset: str) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Scores by kind of input, method and photo."""
    kinds = {"plain": degradation("bicubic", pipe.scale), preset: degradation(preset, pipe.scale)}
    results: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {} for kind in kinds}
    for photo in (photos[index] for index in range(len(photos))):
        hr = photo["hr"][None]
        for kind, degrade in kinds.items():
            lr = degrade(hr, [photo["seed"]])
            images, _ = upscale_each_way(pipe, lr, photo["seed"])
            for method, image in images.items():
                entry = {"photo": photo["name"], **scores(image, hr, pipe.scale)}
                results[kind].setdefault(method, []).append(entry)
    return results


def summary_table(entries: dict[str, list[dict[str, Any]]]) -> str:
    """Means over the photos, a row for each method."""
    rows = []
    for method, photos in entries.items():
        mean = {metric: sum(photo[metric] for photo in photos) / len(photos) for metric in METRICS}
        gain = mean["psnr"] - sum(photo["psnr"] for photo in entries["bicubic"]) / len(photos)
        shift = " ".join(f"{mean[f'shift_{colour}']:+.2f}" for colour in ("red", "green", "blue"))
        numbers = [f"{mean['psnr']:.2f}", f"{gain:+.2f}", f"{mean['ssim']:.4f}"]
        rows.append([method, *numbers, f"{mean['fine_detail']:.2f}", f"{mean['grid']:.1%}", shift])
    header = ["", "PSNR-Y, dB", "to bicubic", "SSIM-Y", "fine detail", "grid", "colour shift R G B, levels"]
    return markdown_table(header, rows)


def report(results: dict[str, dict[str, list[dict[str, Any]]]], settings: dict[str, Any]) -> str:
    """The tables as Markdown, with what was measured and how."""
    border = settings["border"]
    lines = [
        f"{settings['model']}, {settings['steps']} steps, {settings['photos']} photos, seed {settings['seed']}. "
        f"PSNR and SSIM on Y of YCbCr (BT.601, 16..235) of the saved 8-bit values, {border} border pixels left out. "
        "Fine detail: spectral power of Y above half the Nyquist frequency, in units of the real photo's. Grid: how "
        f"much stronger gradients are at one place of a {border}-pixel grid than on average."
    ]
    for kind, entries in results.items():
        name = "Plain antialiased bicubic input" if kind == "plain" else f"Degraded input, preset `{kind}`"
        lines += [f"{name}:", summary_table(entries)]
    return "\n\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos not trained on")
    add_model_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--preset", default="mild", choices=sorted(set(DEGRADATION_PRESETS) - {"bicubic"}))
    parser.add_argument("--limit", type=int, help="at most so many photos, evenly spread")
    parser.add_argument("--seed", type=int, default=0, help="decides the degradations and the noise")
    parser.add_argument("--out-json", type=Path, help="scores of every photo")
    parser.add_argument("--out-md", type=Path, help="the tables that are printed")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = load_model(args.model)
    photos = ValidationDataset(FolderSource(args.photos), pipe.scale, limit=args.limit, seed=args.seed)
    settings = {
        "model": model_name(args.model),
        "steps": pipe.scheduler.config.num_train_timesteps,
        "photos": len(photos),
        "seed": args.seed,
        "border": pipe.scale,
    }
    results = evaluate(pipe, photos, args.preset)
    text = report(results, settings)
    print(text)
    if args.out_md:
        args.out_md.write_text(text)
    if args.out_json:
        args.out_json.write_text(json.dumps({"settings": settings, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
