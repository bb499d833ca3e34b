"""What the upsampled input lacks, and what g says of it: Fig. 2a, Fig. 3 and the calibration of psi."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import skimage.data
import torch

from benchmarks.common import load_model, markdown_table, model_name
from benchmarks.studies.charts import line_chart
from benchmarks.studies.findings import Findings
from benchmarks.studies.photos import Pair, add_photo_arguments, described, load_pairs
from upsr_core import UPSRPipeline
from upsr_core.evaluation.sheet import sheet
from upsr_core.image_input import to_tensor
from upsr_core.uncertainty import heat_map

LIMITS = (0.01, 0.02, 0.05, 0.1, 0.2)
BINS, LARGEST = 50, 0.25
DECILES = 10
# Where a map of residuals is as bright as it gets.
BRIGHT = 0.1


def histogram(args: argparse.Namespace) -> Findings:
    """Fig. 2a: how the difference |y - x| of the upsampled input and the real photo is spread over the pixels."""
    scale = load_model(None).scale
    edges = np.linspace(0, LARGEST, BINS + 1)
    rows, lines, data = [], {}, {}
    for preset in args.presets:
        values = [
            (pair.upsampled(scale) - pair.hr).abs().flatten()
            for pair in load_pairs(argparse.Namespace(**{**vars(args), "preset": preset}), scale)
        ]
        residual = torch.cat(values).numpy()
        shares = [float((residual < limit).mean()) for limit in LIMITS]
        counts, _ = np.histogram(residual, edges)
        lines[preset] = (counts / len(residual) * 100).tolist()
        rows.append([f"`{preset}`", *(f"{share:.1%}" for share in shares), f"{residual.mean():.4f}"])
        data[preset] = {
            "mean": float(residual.mean()),
            "shares below": dict(zip(map(str, LIMITS), shares, strict=True)),
        }
    table = markdown_table(["input", *(f"< {limit}" for limit in LIMITS), "mean"], rows)
    words = (
        f"{len(values)} photos, centre {args.crop}x{args.crop}, seed {args.seed}: share of the values with |y "
        f"- x| below a "
        "limit, in [0,1] units, y the bicubic input and x the photo."
    )
    chart = line_chart(edges[:-1].tolist(), lines, "|y - x|", "% of the values")
    return Findings(f"{words}\n\n{table}", {"seed": args.seed, "photos": len(values), "results": data}, {".svg": chart})


def add_histogram_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `histogram`."""
    add_photo_arguments(parser)
    parser.add_argument("--presets", nargs="+", default=["bicubic", "mild", "upsr"], help="default bicubic mild upsr")


def _maps(pipe: UPSRPipeline, pair: Pair) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """|x - y|, psi and |x - g|, each (1,3,H,W) in [0,1] units."""
    psi, sr = pipe.estimate_uncertainty(pair.lr)
    return (pair.hr - pair.upsampled(pipe.scale)).abs(), psi, (pair.hr - sr).abs()


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def correlation(args: argparse.Namespace) -> Findings:
    """Fig. 3: the true residual |x - y| against the estimate |g(y) - y| that the uncertainty is made of."""
    pipe = load_model(args.model)
    pixels, coarse, signed = [], [], []
    for pair in load_pairs(args, pipe.scale):
        true, estimate, _ = _maps(pipe, pair)
        pool = torch.nn.functional.avg_pool2d
        pixels.append(_correlation(true, estimate))
        coarse.append(_correlation(pool(true, 8), pool(estimate, 8)))
        signed.append(true.mean().item() / max(estimate.mean().item(), 1e-9))
    rows = [
        [name, f"{np.mean(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"]
        for name, values in {"single values": pixels, "means of 8x8 pixels": coarse}.items()
    ]
    words = (
        f"{described(args, len(pixels))}; {model_name(args.model)}. Correlation of |x - y| and |g(y) - y|, "
        f"photo by photo. The true "
        f"residual is {np.mean(signed):.1f} times the estimate on average: g gives the mean of what is "
        f"likely, not all that is missing."
    )
    data = {"seed": args.seed, "single values": pixels, "8x8": coarse, "true / estimated": signed}
    return Findings(f"{words}\n\n{markdown_table(['', 'mean', 'lowest', 'highest'], rows)}", data, _shown(pipe))


def _shown(pipe: UPSRPipeline) -> dict[str, Any]:
    """The two maps for scikit-image's cat, a photo in the public domain."""
    hr = to_tensor(skimage.data.chelsea()[20:276, 90:346][None].astype(np.float32) / 255)
    lr = torch.nn.functional.interpolate(hr, scale_factor=1 / pipe.scale, mode="bicubic", antialias=True).clamp(0, 1)
    true, psi, _ = _maps(pipe, Pair("", lr, hr))
    parts = {
        "x": hr,
        "y": Pair("", lr, hr).upsampled(pipe.scale),
        "true |x - y|": heat_map(true, BRIGHT),
        "estimated |g(y) - y|": heat_map(psi, BRIGHT),
    }
    return {".jpg": sheet([(f"lightest colour: {BRIGHT} and above", parts)], crop=hr.shape[-1], zoom=1)}


def add_correlation_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `correlation`."""
    add_photo_arguments(parser)
    parser.add_argument("--model", help="model folder (default: bundled)")


def calibration(args: argparse.Namespace) -> Findings:
    """How well psi foretells errors: the mean error of each tenth of the values, sorted by psi."""
    pipe = load_model(args.model)
    parts = [[values.flatten() for values in _maps(pipe, pair)] for pair in load_pairs(args, pipe.scale)]
    of_y, psi, of_g = (torch.cat(values) for values in zip(*parts, strict=True))
    order = psi.argsort()
    rows = []
    lines: dict[str, list[float]] = {"|x - y|": [], "|x - g|": []}
    means = []
    for tenth in order.chunk(DECILES):
        mean = psi[tenth].mean().item()
        errors = of_y[tenth].mean().item(), of_g[tenth].mean().item()
        means.append(mean)
        for line, error in zip(lines.values(), errors, strict=True):
            line.append(error)
        weight = pipe.scheduler.noise_weight(psi[tenth]).mean().item()
        rows.append([len(means), f"{mean:.4f}", f"{weight:.2f}", *(f"{error:.4f}" for error in errors)])
    table = markdown_table(["tenth", "psi", "w", *lines], rows)
    ratio = [lines["|x - g|"][-1] / lines["|x - g|"][0], lines["|x - y|"][-1] / lines["|x - y|"][0]]
    words = (
        f"{described(args, len(parts))}; {model_name(args.model)}. All in [0,1] units, psi = |g - y|. From "
        f"the first to the last tenth g's "
        f"error grows {ratio[0]:.1f} times and the input's {ratio[1]:.1f} times; were psi the input's error "
        f"itself, the columns psi "
        "and |x - y| would be equal."
    )
    chart = line_chart(means, lines, "psi, mean of a tenth", "error")
    data = {"seed": args.seed, "photos": len(parts), "psi": means, **lines}
    return Findings(f"{words}\n\n{table}", data, {".svg": chart})


def add_calibration_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `calibration`."""
    add_photo_arguments(parser)
    parser.add_argument("--model", help="model folder (default: bundled)")
