"""The pictures of a run: the sheet of crops, and the page with a slider between two methods."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from ..images.files import read_image
from ..images.whole_files import write_whole
from ..pixels import to_pil
from .report import NO_NUMBER
from .run import Plan, Result
from .sheet import CROP, difference, enlarged, sheet

REAL, INPUT = "real", "LR"
_PAGE = Path(__file__).with_name("page.html")


def write_sheet(path: Path, plan: Plan, results: Sequence[Result], count: int) -> None:
    """The crops of the ``count`` images where the methods differ most, with LR and real one."""
    found = []
    for group in _groups(plan, results):
        images = [result.record.image() for result in group]
        found.append((difference(images), group))
    found.sort(key=lambda item: -item[0][0])
    rows = []
    for (_, top, left), group in found[:count]:
        rows.append((_name(plan, group), {label: _square(part, top, left) for label, part in _shown(plan, group)}))
    buffer = BytesIO()
    sheet(rows).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


def write_page(path: Path, plan: Plan, results: Sequence[Result], count: int) -> None:
    """A page of HTML with all it needs: a slider between any two methods and the scores, of ``count`` images."""
    groups = _groups(plan, results)
    labels = [label for label, _ in _shown(plan, groups[0])]
    shown = groups[:: math.ceil(len(groups) / count)] if count else []
    images = []
    for group in shown:
        pictures = [_data_address(picture) for _, picture in _shown(plan, group)]
        height, width = _shown(plan, group)[0][1].shape[-2:]
        scores = [[""] * len(plan.metrics) for _ in labels]
        for result in group:
            scores[labels.index(result.method.label)] = [_numbers(metric, result) for metric in plan.metrics]
        images.append(
            {"name": _name(plan, group), "pictures": pictures, "scores": scores, "width": width, "height": height}
        )
    left_out = len(groups) - len(shown)
    data = {
        "methods": labels,
        "columns": [metric.title for metric in plan.metrics],
        "images": images,
        "start": labels.index(plan.methods[-1].label),
        "note": f"{left_out} of {len(groups)} images are left out; --page-images shows more." if left_out else "",
    }
    # Inside of a script element, "</" would end it.
    text = _PAGE.read_text(encoding="utf-8").replace("__DATA__", json.dumps(data).replace("</", "<\\/"))
    write_whole(path, text.encode())


def _groups(plan: Plan, results: Sequence[Result]) -> list[list[Result]]:
    """The results of each LR image for the first seed, in the order of the methods."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.seed == plan.seeds[0]:
            groups.setdefault((result.kind, result.sample.name), []).append(result)
    return list(groups.values())


def _name(plan: Plan, group: Sequence[Result]) -> str:
    return group[0].sample.name if len(plan.kinds) == 1 else f"{group[0].sample.name}, {group[0].kind}"


def _shown(plan: Plan, group: Sequence[Result]) -> list[tuple[str, torch.Tensor]]:
    """The LR image, the results and the real image, all at its size."""
    first = group[0]
    lr = read_image(plan.input_path(first.kind, first.seed, first.sample)).rgb
    hr = plan.read_hr(first.sample)
    shown = [(INPUT, enlarged(lr, plan.scale)), *((result.method.label, result.record.image()) for result in group)]
    return shown if hr is None else [*shown, (REAL, hr)]


def _square(image: torch.Tensor, top: int, left: int) -> torch.Tensor:
    return image[..., top : top + CROP, left : left + CROP]


def _data_address(image: torch.Tensor) -> str:
    buffer = BytesIO()
    to_pil(image[0]).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _numbers(metric: Any, result: Result) -> str:
    values = (result.scores[column] for column in metric.columns)
    return " ".join(NO_NUMBER if math.isnan(value) else format(value, metric.form) for value in values)
