from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import compile as benchmark
from upsr_core import UPSRPipeline


def test_pays_from_the_image_whose_time_is_saved() -> None:
    results = {
        "first run": {"first": 100.0, "compiled": 2.0, "plain": 4.0, "difference": 1e-6},
        "second run": {"first": 4.0, "compiled": 4.0, "plain": 4.0, "difference": 0.0},
    }
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in benchmark.result_table(results).split("\n")
    ]
    assert rows[2] == ["first run", "100.00", "2.00", "4.00", "2.00", "49", "1.0e-06"]
    assert rows[3][5] == "never"


def test_compiled_and_plain_give_the_same(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch's own compiler takes a minute.
    own = UPSRPipeline.compile
    monkeypatch.setattr(UPSRPipeline, "compile", lambda pipe: own(pipe, backend="eager"))
    result = benchmark.measure(str(model_folder), side=40, tile=32, repeats=1, threads=None)
    assert result["difference"] < 1e-4
    assert min(result["first"], result["plain"], result["compiled"]) > 0
