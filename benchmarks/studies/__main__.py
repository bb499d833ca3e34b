"""The studies of docs/experiments.md.

python -m benchmarks.studies calibration --photos HELD_OUT --write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.common import add_threads_argument
from benchmarks.studies import adaptive, cost, noise, residuals, sheet, training
from benchmarks.studies.findings import Findings, write

STUDIES: dict[str, tuple[Callable[[argparse.Namespace], Findings], Callable[[argparse.ArgumentParser], None]]] = {
    "histogram": (residuals.histogram, residuals.add_histogram_arguments),
    "correlation": (residuals.correlation, residuals.add_correlation_arguments),
    "calibration": (residuals.calibration, residuals.add_calibration_arguments),
    "levels": (noise.levels, noise.add_levels_arguments),
    "weighted": (noise.weighted, noise.add_weighted_arguments),
    "sheet": (sheet.sheet, sheet.add_sheet_arguments),
    "adaptive": (adaptive.adaptive, adaptive.add_adaptive_arguments),
    "cost": (cost.cost, cost.add_cost_arguments),
    "trained": (training.trained, training.add_trained_arguments),
}
# Folders of the user's, which say nothing to others.
PLACEHOLDERS = {
    "--photos": "HELD_OUT",
    "--train-photos": "PHOTOS",
    "--runs": "RUNS",
    "--niqe": "NIQE_PARAMETERS",
    "--rival": "realesrgan-x4plus.param",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one study; 0: done, 2: wrong usage or input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies", description="The studies of docs/experiments.md."
    )
    commands = parser.add_subparsers(dest="study", required=True)
    for name, (study, add_arguments) in STUDIES.items():
        own = commands.add_parser(name, help=study.__doc__, description=study.__doc__)
        add_arguments(own)
        add_threads_argument(own)
        own.add_argument("--write", action="store_true", help="put the result into docs/experiments.md")
    args = parser.parse_args(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        findings = STUDIES[args.study][0](args)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(findings.text)
    if args.write:
        write(args.study, command_line(arguments), findings)
    return 0


def command_line(arguments: Sequence[str]) -> str:
    """The command as others can run it, with names in the place of the user's folders."""
    shown = [
        PLACEHOLDERS.get(before, argument)
        for before, argument in zip(["", *arguments[:-1]], arguments, strict=True)
        if argument != "--write"
    ]
    shown = [Path(part).name if Path(part).is_absolute() else part for part in shown]
    return " ".join(["python -m benchmarks.studies", *shown])


if __name__ == "__main__":
    sys.exit(main())
