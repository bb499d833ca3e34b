from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import picture, quality
from benchmarks.quality import METRICS, grid_excess
from trainer.data.crops import ValidationDataset
from trainer.data.sources.image_folders import FolderSource
from upsr_core.degradation.degrading import DEGRADATION_PRESETS, Degradation
from upsr_core.evaluation.metrics import psnr
from upsr_core.resampling import upsample


@pytest.fixture(scope="module")
def outputs(model_folder: Path, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, dict]]:
    """Markdown and JSON of the same run made twice."""
    results = []
    for run in ("first", "second"):
        folder = tmp_path_factory.mktemp(run)
        files = ["--out-md", str(folder / "a.md"), "--out-json", str(folder / "a.json")]
        quality.main(["--photos", str(photo_folder), "--model", str(model_folder), *files])
        results.append(((folder / "a.md").read_text(), json.loads((folder / "a.json").read_text())))
    return results


def test_scores_of_every_kind_method_photo_and_metric(outputs: list[tuple[str, dict]]) -> None:
    results = outputs[0][1]["results"]
    assert list(results) == ["plain", "mild"]
    for methods in results.values():
        assert list(methods) == ["bicubic", "g", "UPSR"]
        for entries in methods.values():
            assert [entry["photo"] for entry in entries] == ["a.png", "b.png"]
            assert all(np.isfinite([entry[metric] for metric in METRICS]).all() for entry in entries)


def test_same_seed_same_scores(outputs: list[tuple[str, dict]]) -> None:
    assert outputs[0] == outputs[1]


def test_table_says_what_was_measured_and_the_means(outputs: list[tuple[str, dict]]) -> None:
    text, data = outputs[0]
    assert "tiny, 5 steps, 2 photos, seed 0." in text
    assert "4 border pixels left out" in text
    assert "Degraded input, preset `mild`:" in text
    for kind in ("plain", "mild"):
        mean = np.mean([entry["psnr"] for entry in data["results"][kind]["UPSR"]])
        assert f"| UPSR | {mean:.2f} |" in text


def test_bicubic_score_is_that_of_the_bicubic_image(outputs: list[tuple[str, dict]], photo_folder: Path) -> None:
    photo = ValidationDataset(FolderSource(photo_folder), 4)[1]
    hr = photo["hr"][None]
    assert hr.shape == (1, 3, 96, 128)
    lr = Degradation(DEGRADATION_PRESETS["bicubic"], 4)(hr, [0])
    expected = psnr(upsample(lr, 4).clamp(0, 1), hr, border=4).item()
    assert outputs[0][1]["results"]["plain"]["bicubic"][1]["psnr"] == pytest.approx(expected, abs=1e-6)


def test_grid_excess_sees_a_grid_in_either_direction() -> None:
    smooth = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert grid_excess(smooth, 4).max() < 0.02
    for dim in (2, 3):
        lines = smooth.clone()
        lines.narrow(dim, 0, 256).index_fill_(dim, torch.arange(3, 256, 4), 1.0)
        excess = grid_excess(lines, 4)
        assert excess.shape == (2,)
        assert excess.min() > 0.1


def test_strip_shows_the_panels_side_by_side(model_folder: Path, photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    picture.main([str(photo_folder / "a.png"), str(out), "--model", str(model_folder), "--original"])
    strip = np.asarray(Image.open(out))
    height, width = 96, 128
    step = width + picture.GAP
    assert strip.shape[1] == 6 * step - picture.GAP
    lr = strip[:height, :width]
    np.testing.assert_array_equal(lr, lr[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))
    original = np.asarray(Image.open(photo_folder / "a.png"))[:height, :width]
    np.testing.assert_array_equal(strip[:height, 5 * step :], original)
    for column in range(6):  # a label under each
        assert strip[height:, column * step : column * step + width].min() < 100


def test_strip_of_a_part_of_an_lr_photo(model_folder: Path, photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    arguments = [str(photo_folder / "a.png"), str(out), "--model", str(model_folder), "--is-lr"]
    picture.main([*arguments, "--crop", "5", "6", "23", "17"])
    strip = np.asarray(Image.open(out))
    part = np.asarray(Image.open(photo_folder / "a.png"))[6:23, 5:28]
    np.testing.assert_array_equal(strip[: 4 * 17, : 4 * 23][::4, ::4], part)
    with pytest.raises(ValueError, match=r"a\.png: --crop 100 6 40 17 is not inside of 130x98; give X Y W H"):
        picture.main([*arguments, "--crop", "100", "6", "40", "17"])
