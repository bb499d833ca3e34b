"""How much noise where: Fig. 2b and Fig. 5."""

from __future__ import annotations

import argparse

import torch

from benchmarks.common import load_model, markdown_table, model_name
from benchmarks.studies.charts import line_chart
from benchmarks.studies.findings import Findings
from benchmarks.studies.photos import add_photo_arguments, described, load_pairs, patch_means, upscaled
from upsr_core.evaluation.sheet import enlarged, sheet
from upsr_core.evaluation.st_lpips import STLPIPS
from upsr_core.images.files import read_image
from upsr_core.resampling import pad_to_multiple, upsample

LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0)
UNW = "w(psi)"
PATCH = 64
GROUPS = 5
NOT_TRAINED_FOR = (
    "The model was trained with w(psi): other weights show what it does outside of that, and not what a model "
    "trained with them would do."
)


@torch.no_grad()
def levels(args: argparse.Namespace) -> Findings:
    """Fig. 2b: error and perceptual distance of patches, by how much they lack, for constant noise and for w."""
    pipe = load_model(args.model)
    distance = STLPIPS("alex")
    lacking: list[torch.Tensor] = []
    errors: dict[str, list[torch.Tensor]] = {name: [] for name in (*map(str, LEVELS), UNW)}
    distances: dict[str, list[torch.Tensor]] = {name: [] for name in errors}
    for pair in load_pairs(args, pipe.scale):
        lacking.append(patch_means((pair.upsampled(pipe.scale) - pair.hr).abs(), PATCH))
        real = _patches(pair.hr)
        for name in errors:
            image = upscaled(pipe, pair.lr, args.seed, None if name == UNW else float(name))
            errors[name].append(patch_means((image - pair.hr).square(), PATCH).sqrt())
            distances[name].append(distance(2 * _patches(image) - 1, 2 * real - 1))
    groups = torch.cat(lacking).argsort().chunk(GROUPS)
    means = [torch.cat(lacking)[group].mean().item() for group in groups]
    parts, data = [], {"seed": args.seed, "photos": len(lacking), "|y - x|": means}
    charts = {}
    for title, values, end in (("RMSE", errors, "-error.svg"), ("ST-LPIPS", distances, "-distance.svg")):
        lines = {name: [torch.cat(v)[group].mean().item() for group in groups] for name, v in values.items()}
        totals = {name: torch.cat(v).mean().item() for name, v in values.items()}
        rows = [[name, *(f"{x:.4f}" for x in line), f"{totals[name]:.4f}"] for name, line in lines.items()]
        parts.append(markdown_table([f"{title}, w", *(f"|y - x| = {mean:.3f}" for mean in means), "all"], rows))
        data[title] = {**lines, "all": totals}
        charts[end] = line_chart(means, lines, "|y - x| of a patch", title)
    words = (
        f"{described(args, len(lacking))}; {model_name(args.model)}. Patches of {PATCH}x{PATCH} in {GROUPS} "
        "groups of equal size by their mean |y - x|; rows: the noise weight w, constant or from the uncertainty. Lower "
        f"is better in both. {NOT_TRAINED_FOR}"
    )
    return Findings("\n\n".join([words, *parts]), data, charts)


def add_levels_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `levels`."""
    add_photo_arguments(parser, limit=12)
    parser.add_argument("--model", help="model folder (default: bundled)")


def _patches(image: torch.Tensor) -> torch.Tensor:
    """(1,3,H,W) to (N,3,PATCH,PATCH), row by row."""
    rows = image[0].unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1)


@torch.no_grad()
def weighted(args: argparse.Namespace) -> Findings:
    """Fig. 5: the noisiest state with isotropic and with weighted noise, and what becomes of each."""
    pipe = load_model(args.model)
    lr = read_image(args.picture).rgb
    x, y, width, height = args.part or (0, 0, lr.shape[-1], lr.shape[-2])
    scale = pipe.scale
    psi, _ = pipe.estimate_uncertainty(lr)
    weight = pipe.scheduler.noise_weight(psi)
    upsampled = upsample(2 * lr - 1, scale)
    padded = pad_to_multiple(lr, pipe.unet.config.pad_multiple).shape[-2:]
    noise = torch.randn(1, 3, *(scale * side for side in padded), generator=torch.Generator().manual_seed(args.seed))
    own = noise[..., : upsampled.shape[-2], : upsampled.shape[-1]]
    inside = (..., slice(scale * y, scale * (y + height)), slice(scale * x, scale * (x + width)))

    def shown(state: torch.Tensor) -> torch.Tensor:
        return ((state + 1) / 2).clamp(0, 1)[inside]

    parts = {
        "LR": enlarged(lr, scale)[inside],
        "w": weight[inside],
        "start, w = 1": shown(pipe.scheduler.prior_sample(upsampled, own)),
        "start, w(psi)": shown(pipe.scheduler.prior_sample(upsampled, own, weight)),
        "result, w = 1": upscaled(pipe, lr, args.seed, 1.0)[inside],
        "result, w(psi)": upscaled(pipe, lr, args.seed)[inside],
    }
    mean = weight.mean().item()
    words = (
        f"{model_name(args.model)}, seed {args.seed}. The mean of w is {mean:.2f} here, so that the state has "
        f"{weight.square().mean().item():.2f} of the isotropic noise's power. {NOT_TRAINED_FOR}"
    )
    data = {"seed": args.seed, "mean w": mean, "power": weight.square().mean().item()}
    return Findings(words, data, {".jpg": sheet([("", parts)], crop=scale * max(width, height), zoom=1)})


def add_weighted_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `weighted`."""
    parser.add_argument("--picture", required=True, help="LR image to show")
    parser.add_argument("--part", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="of it, in its pixels")
    parser.add_argument("--model", help="model folder (default: bundled)")
    parser.add_argument("--seed", type=int, default=0)
