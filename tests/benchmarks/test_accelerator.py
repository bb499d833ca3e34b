from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import accelerator
from benchmarks.accelerator import PartResult, run_part, run_parts, table
from benchmarks.accelerator_parts import PARTS, Row, Setting

# The compiler itself is not what is tested, and takes a minute.
CPU = Setting("cpu", small=True, backend="eager")


def test_parity_holds_in_float32_on_a_cpu() -> None:
    rows = list(PARTS["parity"](CPU))
    assert [row.what for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        decibels = float(row.value.split(", ")[1].removesuffix(" dB"))
        exact = "float32" in row.what
        assert row.note == ("holds 0.0001" if exact else "")
        assert decibels > (90 if exact else 25)


@pytest.mark.parametrize(("part", "rows"), [("speed", 2), ("training", 1), ("compiled", 2)])
def test_every_part_that_a_cpu_can_run_gives_its_figures(part: str, rows: int) -> None:
    found = list(PARTS[part](CPU))
    assert len(found) == rows
    assert all(float(row.value.split()[0]) > 0 for row in found)


def test_goes_on_after_a_part_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert accelerator.main(["-o", str(tmp_path / "a"), "--device", "cpu", "--parts", "offload", "tiles"]) == 1
    found = json.loads((tmp_path / "a" / "results.json").read_text())
    failed, done = found["parts"]
    assert failed["failure"] == "RuntimeError: needs a CUDA device, not cpu"
    assert done["failure"] is None
    assert done["rows"]
    text = (tmp_path / "a" / "table.md").read_text()
    assert "| offload | failed |  | RuntimeError: needs a CUDA device, not cpu |" in text
    assert "| tiles | 64x64 LR, tiles of 32 |" in text
    assert text.split("\n\n")[1].strip() in capsys.readouterr().out


def test_ends_in_time() -> None:
    late = run_part("parity", CPU, limit=0.2)
    assert late.failure == "not done after 0 s"
    assert [result.failure for result in run_parts(["speed", "tiles"], CPU, limit=0)] == ["no time was left"] * 2


def test_table_shows_rows_and_failures() -> None:
    text = table([PartResult("speed", [Row("a", "1 ms", "b")], 1.0, "died | so")])
    assert text.splitlines()[2:] == ["| speed | a | 1 ms | b |", "| speed | failed |  | died / so |"]
