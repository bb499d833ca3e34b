"""The trained studies: the same small denoiser with a part of the method left out, for several seeds.

Table 1 switches uncertainty-weighted noise (UNW) and the SR condition on and off; a fifth variant has the published
shift mask. All have the same steps, crops, degradations, noise and timesteps; ``input_variance`` is that of each
one's noise. What is trained already is left alone, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.common import load_model, markdown_table
from benchmarks.studies.findings import Findings
from benchmarks.studies.photos import add_photo_arguments, described, load_pairs, upscaled
from trainer import train
from trainer.config import load_config
from trainer.output.checkpointing import list_checkpoints
from upsr_core.evaluation.metrics import fine_detail_ratio, psnr, ssim
from upsr_core.evaluation.st_lpips import STLPIPS
from upsr_core.loading import BUNDLED_MODEL
from upsr_core.pixels import quantise

CONFIG = Path(__file__).with_name("trained.yaml")
NO_UNW = ["scheduler.weight_min=1.0", "scheduler.input_variance=1.0"]
NO_SR = ["unet.sr_condition=false"]
VARIANTS = {
    "baseline": NO_UNW + NO_SR,
    "UNW": NO_SR,
    "SR condition": NO_UNW,
    "UNW and SR condition": [],
    "both, published mask": ["unet.shift_mask=published"],
}


def model_folder(runs: Path, variant: str, seed: int) -> Path:
    """Where the model of a run lies."""
    return runs / f"{variant.replace(' ', '_').replace(',', '')}-{seed}" / "model"


def train_all(photos: Path, runs: Path, seeds: Sequence[int], overrides: Sequence[str] = ()) -> None:
    """Train what is not there yet, one seed of all variants after the other.

    Args:
        photos: folder of training photos.
        runs: where each run gets a folder.
        seeds: of the initial weights and of everything that is drawn.
        overrides: ``key.sub=value`` of the trainer, for all runs.

    Raises:
        InterruptedError: a run was stopped; it has saved where it is.
    """
    os.environ["ACCELERATE_USE_CPU"] = "true"
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("trainer").setLevel(logging.INFO)
    for seed in seeds:
        for variant, switches in VARIANTS.items():
            folder = model_folder(runs, variant, seed)
            if folder.is_dir():
                continue
            fixed = [f"data.train_dir={photos}", f"output_dir={folder.parent}", f"seed={seed}"]
            config = load_config(CONFIG, [*fixed, f"sr_net_from={BUNDLED_MODEL}", *switches, *overrides])
            begun = bool(list_checkpoints(folder.parent / "checkpoints" / "unet"))
            logging.getLogger("trainer").info("%s, seed %d", variant, seed)
            if train.train(config, "latest" if begun else None) != 0:
                raise InterruptedError(f"{folder.parent}: stopped; the same command goes on")


def trained(args: argparse.Namespace) -> Findings:
    """Table 1, and the shift mask: scores of each variant on held-out photos, with the spread over the seeds."""
    train_all(args.train_photos, args.runs, args.seeds, [f"unet_training.max_steps={args.steps}"])
    with torch.no_grad():
        return _scored(args)


def _scored(args: argparse.Namespace) -> Findings:
    pairs = list(load_pairs(args, load_model(None).scale))
    scorers = _scorers()
    results: dict[str, dict[str, list[float]]] = {}
    for variant in VARIANTS:
        results[variant] = {name: [] for name in scorers}
        for seed in args.seeds:
            pipe = load_model(str(model_folder(args.runs, variant, seed)))
            images = [quantise(upscaled(pipe, pair.lr, args.seed)) / 255 for pair in pairs]
            for name, score in scorers.items():
                means = [score(image, pair.hr) for image, pair in zip(images, pairs, strict=True)]
                results[variant][name].append(statistics.fmean(means))
    rows = [[variant, *(_with_spread(values) for values in scores.values())] for variant, scores in results.items()]
    words = (
        f"{args.steps} steps of {BATCH} crops of 96x96 for each variant and seed "
        f"({', '.join(map(str, args.seeds))}), the same crops, "
        f"degradations, noise and timesteps for all variants of a seed; {described(args, len(pairs))}. Mean "
        f"and standard deviation "
        "over the seeds. Without the SR condition the denoiser's output is added to y, with it to g's image."
    )
    effects = [[name, *cells] for name, cells in _effects(results).items()]
    header = ["", *scorers]
    text = "\n\n".join([words, markdown_table(header, rows), EFFECTS, markdown_table(header, effects)])
    return Findings(text, {"seeds": list(args.seeds), "steps": args.steps, "photos": len(pairs), "results": results})


BATCH = 4
EFFECTS = "What each part changes, seed by seed (mean and standard deviation of the differences):"


def _scorers() -> dict[str, Callable[[torch.Tensor, torch.Tensor], float]]:
    distance = STLPIPS("alex")
    return {
        "PSNR-Y, dB \u2191": lambda image, hr: psnr(image, hr, 4).item(),
        "SSIM-Y \u2191": lambda image, hr: ssim(image, hr, 4).item(),
        "ST-LPIPS \u2193": lambda image, hr: distance(2 * image - 1, 2 * hr - 1).item(),
        "fine detail": lambda image, hr: fine_detail_ratio(image, hr).item(),
    }


def _effects(results: dict[str, dict[str, list[float]]]) -> dict[str, list[str]]:
    pairs = {
        "UNW, without SR condition": ("UNW", "baseline"),
        "UNW, with SR condition": ("UNW and SR condition", "SR condition"),
        "SR condition, without UNW": ("SR condition", "baseline"),
        "SR condition, with UNW": ("UNW and SR condition", "UNW"),
        "published mask instead of Swin's": ("both, published mask", "UNW and SR condition"),
    }
    return {
        name: [
            _with_spread([a - b for a, b in zip(results[with_it][score], results[without][score], strict=True)], "+")
            for score in results[with_it]
        ]
        for name, (with_it, without) in pairs.items()
        if {with_it, without} <= set(results)
    }


def _with_spread(values: Sequence[float], sign: str = "") -> str:
    spread = f" ±{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.4f}{spread}"


def add_trained_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `trained`."""
    add_photo_arguments(parser)
    parser.add_argument("--train-photos", type=Path, required=True, help="folder of photos to train on")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"), help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs; default 0 1 2")
    parser.add_argument("--steps", type=int, default=150, help="of each run; default 150")
