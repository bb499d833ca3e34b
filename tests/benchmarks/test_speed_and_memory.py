from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import memory, speed, tiling
from benchmarks.common import load_model, markdown_table
from benchmarks.tiling import border_gradient


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_markdown_table() -> None:
    assert markdown_table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"


def test_speed_prints_rates_against_the_best_convolution(model_folder: Path, capsys: pytest.CaptureFixture) -> None:
    sizes = ["--side", "16", "--batch-sizes", "1", "2", "--pipeline-sides", "16"]
    speed.main(["--model", str(model_folder), *sizes, "--repeats", "1", "--pipeline-repeats", "1"])
    output = capsys.readouterr().out
    assert output.startswith("tiny, float32, 16x16 LR; ")
    rows = {row[0]: row[1:] for row in _rows(output)}
    convolutions = [rows[f"3x3 convolution, batch {size}"] for size in (1, 2)]
    assert [row[0] for row in convolutions] == ["1.9", "3.8"]
    assert "100%" in [row[-1] for row in convolutions]
    assert {"denoiser", "g"} <= set(rows)
    assert rows["16x16"][0] == "5"


def test_operations_are_counted_once_per_pixel(model_folder: Path) -> None:
    pipe = load_model(str(model_folder))
    small, large = (speed.count_gflop(pipe, side) for side in (16, 32))
    # The time embedding does not grow with the image.
    assert large["denoiser"] == pytest.approx(4 * small["denoiser"], rel=1e-2)
    assert large["g"] == pytest.approx(4 * small["g"], rel=1e-2)
    convolutions = [m for m in pipe.unet.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert small["denoiser"] > 2 * 9 * min(m.in_channels * m.out_channels for m in convolutions) * 64 / 1e9


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_a_run_in_a_process_of_its_own(model_folder: Path) -> None:
    result = memory.measure_apart(str(model_folder), 64, 32, 1)
    assert result["own"] == 4 * 3 * 64**2 * (5 * 16 + 1)
    assert result["peak"] >= result["before"] > 50 * 2**20
    assert result["seconds"] > 0
    rows = _rows(memory.result_table({64: result, 128: result}))
    assert [row[0] for row in rows[2:]] == ["64x64", "128x128"]
    assert rows[2][5] == rows[2][-1] == "1.00"


def test_failing_process_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ValueError: no such tile' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match=r"--child 64 --tile 40 failed:\nValueError: no such tile"):
        memory.measure_apart(None, 64, 40, None)


def test_border_gradient_sees_steps_at_tiles_alone() -> None:
    image = torch.rand(1, 3, 4 * 40, 4 * 72, generator=torch.Generator().manual_seed(0))
    assert border_gradient(image, 32, 8, 4) == pytest.approx(1, abs=0.05)
    stepped = image.clone()
    stepped[..., 4 * 32 :] += 3  # the first tile's right border
    assert border_gradient(stepped, 32, 8, 4) > 1.3
    elsewhere = image.clone()
    elsewhere[..., 4 * 36 :] += 3
    assert border_gradient(elsewhere, 32, 8, 4) < 1.02


def test_tiling_report(model_folder: Path, photo_folder: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--model", str(model_folder), "--tile", "96", "--overlap", "16"]
    tiling.main([str(photo_folder / "a.png"), *options])
    output = capsys.readouterr().out
    assert output.startswith("tiny, tiles of 96 with an overlap of 16\n")
    name, size, mean, largest, *gradients = _rows(output)[-1]
    assert (name, size) == ("a.png", "130x98")
    assert 0 < float(mean) <= float(largest) + 0.5
    assert all(0.5 < float(gradient) < 2 for gradient in gradients)
    with pytest.raises(SystemExit):
        tiling.main([str(photo_folder / "a.png"), "--model", str(model_folder), "--tile", "160"])
    assert "a.png: not larger than a tile of 160" in capsys.readouterr().err
