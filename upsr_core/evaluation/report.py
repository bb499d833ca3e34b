"""The table of a run: on the screen, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import math
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..images.whole_files import write_whole
from .columns import Metric
from .methods import Method
from .run import Plan, Result

# Of packages that have a part in results or scores.
RECORDED_PACKAGES = ("upsr", "torch", "diffusers", "numpy", "pyiqa", "stlpips_pytorch", "spandrel", "ncnn")
MIB = 2**20
NO_NUMBER = "\u2013"


@dataclass(frozen=True)
class Row:
    """A method on one kind of LR images.

    Attributes:
        means: by column, a mean over the images for each seed.
        left_out: by column, the number of images without a value.
        seconds: mean time of an image.
        peak_bytes: most memory; None where it is not known.
    """

    kind: str
    method: Method
    means: dict[str, list[float]]
    left_out: dict[str, int]
    seconds: float
    peak_bytes: int | None

    def mean(self, column: str) -> float:
        """Over the seeds."""
        return statistics.fmean(self.means[column])

    def spread(self, column: str) -> float | None:
        """Standard deviation of the seeds' means; None for one seed."""
        values = self.means[column]
        return statistics.stdev(values) if len(values) > 1 else None


def summarise(plan: Plan, results: Sequence[Result]) -> list[Row]:
    """A row for each kind of LR images and method."""
    rows = []
    for kind in plan.kinds:
        for method in plan.methods:
            own = [result for result in results if result.kind == kind and result.method is method]
            means: dict[str, list[float]] = {}
            left_out: dict[str, int] = {}
            for column in own[0].scores:
                for seed in dict.fromkeys(result.seed for result in own):
                    values = [result.scores[column] for result in own if result.seed == seed]
                    numbers = [value for value in values if not math.isnan(value)]
                    means.setdefault(column, []).append(statistics.fmean(numbers) if numbers else math.nan)
                    left_out[column] = len(values) - len(numbers)
            peaks = [result.record.peak_bytes for result in own]
            known = [peak for peak in peaks if peak is not None]
            seconds = statistics.fmean(result.record.seconds for result in own)
            rows.append(Row(kind, method, means, left_out, seconds, max(known, default=None)))
    return rows


def tables(plan: Plan, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table of each kind of LR images in Markdown, with the settings of its metrics."""
    parts = [_headline(plan)]
    for kind in plan.kinds:
        own = [row for row in rows if row.kind == kind]
        header = ["method", *(_title(metric) for metric in plan.metrics), "s/image", "peak MiB"]
        cells = [[row.method.label, *(_cell(metric, row) for metric in plan.metrics), *_cost(row)] for row in own]
        parts += [f"{_KIND_TITLES.get(kind, f'Degraded by the preset `{kind}`')}:", padded_table(header, cells)]
    parts.append("\n".join(f"- {metric.title}: {metric.settings}." for metric in plan.metrics))
    missing = [f"- {line}." for line in notes] + _left_out(plan, rows)
    if missing:
        parts.append("\n".join(missing))
    return "\n\n".join(parts) + "\n"


def padded_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up on a screen, too."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def write_table(path: Path, text: str) -> None:
    """The Markdown file."""
    write_whole(path, text.encode())


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """A line for each result."""
    text = io.StringIO()
    columns = list(results[0].scores)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["input", "method", "seed", "image", *columns, "seconds", "peak_bytes"])
    for result in results:
        facts = [result.kind, result.method.label, result.seed, result.sample.name]
        scores = [result.scores[column] for column in columns]
        writer.writerow([*facts, *scores, f"{result.record.seconds:.4f}", result.record.peak_bytes])
    write_whole(path, text.getvalue().encode())


def write_json(path: Path, plan: Plan, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Everything about the run but the single images."""
    data = {
        "images": len(plan.samples),
        "names": [sample.name for sample in plan.samples],
        "inputs": plan.kinds,
        "scale": plan.scale,
        "crop": plan.crop,
        "seeds": list(plan.seeds),
        "device": str(plan.device),
        "machine": machine(),
        "versions": versions(),
        "metrics": {m.name: {"title": m.title, "better": m.better, **m.fingerprint} for m in plan.metrics},
        "left out": list(notes),
        "methods": {
            method.label: {
                "kind": method.kind,
                "source": method.source,
                "options": method.options,
                "sha256": identity.files,
                "versions": identity.versions,
            }
            for method, identity in zip(plan.methods, plan.identities, strict=True)
        },
        "results": [
            {
                "input": row.kind,
                "method": row.method.label,
                **{column: _summary(row, column) for column in row.means},
                "seconds": row.seconds,
                "peak_bytes": row.peak_bytes,
            }
            for row in rows
        ],
    }
    write_whole(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def versions() -> dict[str, str]:
    """Of Python and the packages of `RECORDED_PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor and threads."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


_KIND_TITLES = {
    "pairs": "LR images of the data set",
    "lr": "LR images of the data set, without real ones",
    "bicubic": "Plain antialiased bicubic reduction",
}


def _headline(plan: Plan) -> str:
    seeds = ", ".join(map(str, plan.seeds))
    count = "1 image" if len(plan.samples) == 1 else f"{len(plan.samples)} images"
    part = "whole" if plan.crop is None else f"centre {plan.crop}x{plan.crop}"
    if plan.crop == "fit":
        part = f"cut down to multiples of {plan.scale}"
    spread = "; after ± the standard deviation over the seeds" if len(plan.seeds) > 1 else ""
    plural = "s" if len(plan.seeds) > 1 else ""
    return f"{count} ({part}), x{plan.scale}, seed{plural} {seeds}{spread}. Scored on the saved 8-bit images."


def _title(metric: Metric) -> str:
    return metric.title + {1: " ↑", -1: " ↓", 0: ""}[metric.better]


def _cell(metric: Metric, row: Row) -> str:
    numbers = []
    for column in metric.columns:
        mean, spread = row.mean(column), row.spread(column)
        text = NO_NUMBER if math.isnan(mean) else format(mean, metric.form)
        numbers.append(text if spread is None else f"{text} ±{format(spread, metric.form.lstrip('+'))}")
    return " ".join(numbers)


def _cost(row: Row) -> list[str]:
    if row.method.kind == "folder":
        return [NO_NUMBER, NO_NUMBER]
    return [f"{row.seconds:.2f}", NO_NUMBER if row.peak_bytes is None else f"{row.peak_bytes / MIB:.0f}"]


def _left_out(plan: Plan, rows: Sequence[Row]) -> list[str]:
    return [
        f"- {metric.title} has no number for {count} of {len(plan.samples)} images, too small for it or of one colour."
        for metric in plan.metrics
        if (count := max(row.left_out[metric.columns[0]] for row in rows))
    ]


def _summary(row: Row, column: str) -> dict[str, Any]:
    numbers = {"mean": row.mean(column), "std over seeds": row.spread(column), "by seed": row.means[column]}
    return {name: _plain(value) for name, value in numbers.items()}


def _plain(value: Any) -> Any:
    """JSON has no infinite numbers."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or math.isfinite(value) else str(value)
