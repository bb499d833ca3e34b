"""``upsr evaluate``: its arguments, the checks before any work, and its files."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..degradation.config import DEGRADATION_PRESETS
from ..evaluation.columns import NIQE_VARIABLE, all_metrics
from ..evaluation.datasets import check_sizes, find_samples
from ..evaluation.methods import OPTIONS, parse_methods
from .output import complain, say

DEFAULT_METHODS = ("bicubic", "g", "upsr")
NOTE = """\
DATA is a folder with subfolders for HR (hr, gt) and LR images (lr, lq, lr_x4), files *_HR and *_LR4 beside each other,
or a folder of images: LR ones, or with --preset HR ones, of which LR images are made.

Methods are written [NAME=]KIND[:SOURCE][,option=value ...], for example
  bicubic   g   g:MODEL   upsr   upsr:MODEL,steps=1   upsr,stochasticity=1
  ncnn:NAME.param           a pair NAME.param and NAME.bin (pip install ncnn)
  spandrel:FILE.pth         a checkpoint that spandrel knows: ESRGAN, BSRGAN, SwinIR, ... (pip install spandrel)
  ldm:FOLDER                diffusers' LDM super-resolution
  folder:FOLDER             finished images with the names of the LR images, which lie in OUT/inputs
A file alone is an ncnn model or a checkpoint. ncnn and spandrel take tile=N against a lack of memory.

OUT gets table.md, table.json, table.csv, sheet.png (crops where the methods differ most), page.html (a slider between
two methods) and all images. The same command again goes on where it was stopped, and makes nothing a second time."""


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    names = tuple(all_metrics())
    add = parser.add_argument
    add("data", metavar="DATA", help="folder of the data set")
    add("-o", "--out", required=True, metavar="OUT", help="folder of the results")
    help = f"default {' '.join(DEFAULT_METHODS)}; kinds: {', '.join(OPTIONS)}"
    add("-m", "--methods", nargs="+", default=list(DEFAULT_METHODS), metavar="METHOD", help=help)
    add("--metrics", nargs="+", choices=names, default=list(names), metavar="METRIC", help=f"of {', '.join(names)}")
    presets = sorted(DEGRADATION_PRESETS)
    add("--preset", nargs="+", choices=presets, default=[], metavar="PRESET", help=f"of {', '.join(presets)}")
    add("--hr", metavar="FOLDER", help="the HR images of the LR images in DATA")
    add("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="a repetition for each; default 0")
    add("--scale", type=int, default=4, help="super-resolution factor; default 4")
    add("--crop", metavar="N|fit", help="centre of NxN HR pixels; fit: cut sides down to multiples of the scale")
    add("--limit", type=int, metavar="N", help="largest number of images, evenly spread")
    add("--niqe-parameters", metavar="FILE", help=f"niqe_pris_params.npz; default: what {NIQE_VARIABLE} names")
    add("--device", default="auto", help="cpu, cuda, ...; default: an accelerator if there is one")
    add("--threads", type=int, metavar="N", help="processor threads; default: as many as cores")
    add("--sheet-rows", type=int, default=6, metavar="N", help="images on sheet.png; default 6")
    add("--page-images", type=int, default=12, metavar="N", help="images in page.html; default 12")


def evaluate(args: argparse.Namespace) -> int:
    """``upsr evaluate``; its exit status.

    Raises:
        ValueError: an argument, a file or a package is not as it should be; nothing is written.
    """
    _check_numbers(args)
    methods = parse_methods(args.methods)
    crop = _crop(args.crop, args.scale)
    if args.hr and args.preset:
        raise ValueError("--hr names pairs, but --preset makes LR images of HR ones; leave one out")
    samples = find_samples(Path(args.data), Path(args.hr) if args.hr else None, args.scale, bool(args.preset))
    if args.limit:
        count = min(args.limit, len(samples))
        samples = [samples[i * len(samples) // count] for i in range(count)]
    check_sizes(samples, args.scale, crop)
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file, but results need a folder; choose another -o")

    import diffusers
    import torch

    from ..evaluation import report
    from ..evaluation.pictures import write_page, write_sheet
    from ..evaluation.run import Plan, check_methods, run, usable_metrics
    from .commands import find_device

    diffusers.utils.logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    wanted = all_metrics(args.niqe_parameters)
    metrics, absent = usable_metrics([wanted[name] for name in dict.fromkeys(args.metrics)], samples[0].hr is not None)
    for line in absent:
        complain(line)
    if not metrics:
        raise ValueError("none of the metrics can be computed; see above, or choose others with --metrics")
    plan = Plan(
        out=out,
        samples=samples,
        presets=args.preset,
        methods=methods,
        metrics=metrics,
        seeds=list(dict.fromkeys(args.seeds)),
        scale=args.scale,
        crop=crop,
        device=find_device(args.device),
    )
    check_methods(plan)
    results = run(plan)
    rows = report.summarise(plan, results)
    text = report.tables(plan, rows, absent)
    report.write_table(out / "table.md", text)
    report.write_csv(out / "table.csv", results)
    report.write_json(out / "table.json", plan, rows, absent)
    if len(methods) > 1 and args.sheet_rows:
        write_sheet(out / "sheet.png", plan, results, args.sheet_rows)
    if args.page_images:
        write_page(out / "page.html", plan, results, args.page_images)
    for line in text.splitlines():
        say(line)
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    bounds = {"scale": 1, "limit": 1, "threads": 1, "sheet_rows": 0, "page_images": 0}
    for name, low in bounds.items():
        value = getattr(args, name)
        if value is not None and value < low:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {value}")
    if min(args.seeds) < 0 or max(args.seeds) >= 2**63:
        raise ValueError("--seeds must be whole numbers from 0 to 2^63 - 1")


def _crop(text: str | None, scale: int) -> int | str | None:
    if text is None or text == "fit":
        return text
    if not text.isdecimal() or int(text) < scale or int(text) % scale:
        raise ValueError(f"--crop must be fit or a multiple of the scale {scale}, got {text!r}")
    return int(text)
