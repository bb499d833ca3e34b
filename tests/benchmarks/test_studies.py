from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies import training
from benchmarks.studies.__main__ import STUDIES, command_line, main
from benchmarks.studies.charts import line_chart
from benchmarks.studies.findings import DOCUMENT, Findings, write
from trainer.config import load_config
from upsr_core import UNWScheduler

SVG = "{http://www.w3.org/2000/svg}"


def run(name: str, *arguments: object) -> Findings:
    study, add_arguments = STUDIES[name]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return study(parser.parse_args([str(argument) for argument in arguments]))


def test_chart_has_a_line_for_each_name_inside_of_the_axes() -> None:
    root = ElementTree.fromstring(line_chart([0, 1, 4], {"a < b": [0.5, 2, 1], "c": [3, 0, 1]}, "x", "y & z"))
    lines = [
        [[float(number) for number in point.split(",")] for point in line.attrib["points"].split()]
        for line in root.findall(f"{SVG}polyline")
    ]
    assert len(lines) == 2
    # x in proportion, the highest value on top, and 0 at the bottom.
    (x0, _), (x1, _), (x2, _) = lines[0]
    assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 4, abs=0.01)
    assert lines[1][0][1] == min(y for line in lines for _, y in line)
    assert lines[1][1][1] == max(y for line in lines for _, y in line)
    texts = [element.text for element in root.findall(f"{SVG}text")]
    assert {"a < b", "c", "x", "y & z", "0", "3", "4"} <= set(texts)


def test_every_study_has_its_place_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- end of (\w+) -->", text)) == sorted(STUDIES)


def test_findings_replace_what_was_in_their_place(tmp_path: Path) -> None:
    document = tmp_path / "experiments.md"
    document.write_text("# Title\n\n<!-- some -->\nold\n<!-- end of some -->\n\nThe end.\n")
    findings = Findings(r"A table \1", {"seed": 3}, {".png": Image.new("RGB", (4, 4)), "-b.svg": "<svg/>"})
    write("some", "python -m some", findings, document)
    text = document.read_text()
    assert "old" not in text
    assert "```\npython -m some\n```\n\nA table \\1\n\n![some](experiments/some.png)" in text
    assert text.endswith("<!-- end of some -->\n\nThe end.\n")
    facts = json.loads((tmp_path / "experiments/some.json").read_text())
    assert facts["seed"] == 3
    assert {"commit", "command", "machine", "versions"} <= set(facts)
    write("some", "python -m some", findings, document)
    assert document.read_text() == text
    with pytest.raises(ValueError, match=r"lacks the lines <!-- other -->"):
        write("other", "", findings, document)


def test_command_names_no_folder_of_the_user() -> None:
    shown = command_line(["trained", "--photos", "/home/me/a", "--train-photos", "b", "--write", "--seeds", "0", "1"])
    assert shown == "python -m benchmarks.studies trained --photos HELD_OUT --train-photos PHOTOS --seeds 0 1"


def test_histogram_counts_every_value(photo_folder: Path) -> None:
    found = run("histogram", "--photos", photo_folder, "--crop", 96, "--presets", "bicubic", "mild")
    for preset in ("bicubic", "mild"):
        shares = list(found.data["results"][preset]["shares below"].values())
        assert shares == sorted(shares)
        assert 0 < shares[0] < shares[-1] <= 1
    assert found.data["results"]["mild"]["mean"] > found.data["results"]["bicubic"]["mean"]


def test_tenths_are_sorted_by_the_uncertainty(photo_folder: Path, model_folder: Path) -> None:
    found = run("calibration", "--photos", photo_folder, "--crop", 96, "--model", model_folder)
    assert found.data["psi"] == sorted(found.data["psi"])
    assert len(found.data["|x - g|"]) == 10
    # The random g hardly differs from y.
    np.testing.assert_allclose(found.data["|x - g|"], found.data["|x - y|"], atol=2 * max(found.data["psi"]))


def test_correlation_is_one_number_a_photo(photo_folder: Path, model_folder: Path) -> None:
    found = run("correlation", "--photos", photo_folder, "--crop", 96, "--model", model_folder)
    assert len(found.data["single values"]) == 2
    assert all(-1 <= value <= 1 for value in found.data["single values"])
    picture = found.pictures[".jpg"]
    assert isinstance(picture, Image.Image)
    assert picture.width > 4 * 256


def test_levels_of_noise_and_the_weighted_one(photo_folder: Path, model_folder: Path) -> None:
    pytest.importorskip("stlpips_pytorch")
    found = run("levels", "--photos", photo_folder, "--preset", "bicubic", "--crop", 64, "--model", model_folder)
    # Two photos of one patch each.
    assert found.data["|y - x|"] == sorted(found.data["|y - x|"])
    assert set(found.data["RMSE"]["all"]) == {"0.2", "0.4", "0.6", "0.8", "1.0", "w(psi)"}
    assert len(set(found.data["RMSE"]["all"].values())) > 1


def test_weighted_noise_is_weaker(photo_folder: Path, model_folder: Path) -> None:
    found = run("weighted", "--picture", photo_folder / "a.png", "--part", 10, 5, 16, 12, "--model", model_folder)
    assert 0.4 <= found.data["mean w"] <= 1
    assert found.data["power"] <= 1
    picture = found.pictures[".jpg"]
    assert isinstance(picture, Image.Image)
    assert picture.width == 6 * (64 + 6) - 6


def test_sheet_shows_the_methods_of_a_real_evaluation(photo_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    Image.open(photo_folder / "a.png").crop((0, 0, 28, 24)).save(tmp_path / "a.png")
    found = run("sheet", "--photos", tmp_path, "--model", model_folder)
    assert {row["method"] for row in found.data["results"]} == {"bicubic", "g:tiny", "upsr:tiny"}
    picture = found.pictures[".jpg"]
    assert isinstance(picture, Image.Image)
    # LR and the three methods.
    assert picture.width == 4 * (2 * 96 + 6) - 6
    assert picture.height > 2 * 96


def test_adaptive_steps_are_counted_and_scored(photo_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("stlpips_pytorch")
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(36, 36))
    numbers = {
        "mu_pris_param": np.zeros(36),
        "cov_pris_param": mixing @ mixing.T,
        "gaussian_window": np.ones((7, 7)) / 49,
    }
    np.savez(tmp_path / "niqe.npz", **numbers)
    options = ["--photos", photo_folder, "--model", model_folder, "--niqe", tmp_path / "niqe.npz", "--crop", 96]
    found = run("adaptive", *options, "--limit", 1, "--preset", "bicubic", "--tile", 16, "--thresholds", 1e-6, 1)
    calls = {name: values[0] for name, values in found.data["calls, seconds, figures"].items()}
    tiles = calls["1 steps for all"]
    # LR images of 24x24 are padded to 32x32.
    assert tiles == 9
    assert calls["1e-06"] == calls["5 steps for all"] == 5 * tiles
    assert calls["1"] == tiles
    figures = {name: values[2] for name, values in found.data["calls, seconds, figures"].items()}
    assert figures["1e-06"] == figures["5 steps for all"]
    assert figures["1"] == pytest.approx(figures["1 steps for all"])
    assert set(found.pictures) == {"-niqe.svg", "-distance.svg"}


def test_cost_counts_parameters_and_time(model_folder: Path) -> None:
    found = run("cost", "--models", model_folder, "--side", 16, "--steps", 1, 2)
    facts = found.data["results"][str(model_folder)]
    assert facts["denoiser"] > facts["g"] > 0
    assert facts["1 steps, s"] > 0
    assert facts["training, s"] > 0


def test_variants_differ_in_what_they_are_called_after_alone(tmp_path: Path) -> None:
    fixed = [f"data.train_dir={tmp_path}", f"output_dir={tmp_path}"]
    configs = {name: load_config(training.CONFIG, [*fixed, *switches]) for name, switches in training.VARIANTS.items()}
    weights = {name: UNWScheduler(**config.scheduler).config for name, config in configs.items()}
    assert [config.unet.get("sr_condition", True) for config in configs.values()] == [False, False, True, True, True]
    assert [weight.weight_min == 1 for weight in weights.values()] == [True, False, True, False, False]
    # Where the noise is full its variance is, too.
    assert all((weight.weight_min == 1) == (weight.input_variance == 1) for weight in weights.values())
    assert [config.unet["shift_mask"] for config in configs.values()] == ["swin"] * 4 + ["published"]
    full = configs["UNW and SR condition"]
    for config in configs.values():
        assert replace(config, unet=full.unet, scheduler=full.scheduler) == full


def test_trained_runs_are_trained_once_and_scored(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("stlpips_pytorch")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(training, "VARIANTS", {name: training.VARIANTS[name] for name in ("baseline", "UNW")})
    arguments = ["--photos", photo_folder, "--crop", 96, "--train-photos", photo_folder, "--runs", tmp_path / "runs"]
    found = run("trained", *arguments, "--seeds", 5, "--steps", 1)
    assert set(found.data["results"]) == {"baseline", "UNW"}
    assert "| UNW, without SR condition | " in found.text
    assert "published mask" not in found.text
    monkeypatch.setattr(training.train, "train", lambda *arguments: pytest.fail("trained again"))
    again = run("trained", *arguments, "--seeds", 5, "--steps", 1)
    assert again.data == found.data


def test_wrong_input_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["calibration", "--photos", str(tmp_path / "nowhere")])
    assert "nowhere: no such folder" in capsys.readouterr().err
