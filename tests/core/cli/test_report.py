from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.core.cli.photos import save_photo, size_of
from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.cli.arguments import parse_arguments
from upsr_core.cli.main import main
from upsr_core.cli.paths import Job
from upsr_core.cli.report import ReportWriter, read_report, record_of, settings_of
from upsr_core.loading import model_sha256

SOFTWARE = {"model_sha256": "0" * 64, "device": "cpu", "upsr": "0"}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(path: str = "a.png", *options: str, command: str = "upscale") -> dict[str, Any]:
    args = parse_arguments([command, path, *options])
    return record_of(args, Job(Path(path), Path("out", path), ".png"), SOFTWARE, 1.23456, None)


def test_a_run_is_told_of_and_can_be_made_again(
    model: list[str], tmp_path: Path, tiny_pipe: UPSRPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    save_photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("no image")
    out, report = tmp_path / "out", tmp_path / "run.jsonl"
    run = ["upscale", str(tmp_path / "in"), "-o", str(out), "--seed", "7", "--steps", "2", "--scale", "2", *model]
    assert main([*run, "--report", str(report)]) == 1
    good, bad = records(report)
    assert (good["input"], good["output"]) == (str(tmp_path / "in/a.png"), str(out / "a.png"))
    assert (good["seed"], good["settings"]["steps"], good["settings"]["scale"], good["error"]) == (7, 2, 2, None)
    assert good["model_sha256"] == model_sha256(tiny_pipe)
    assert good["seconds"] > 0
    assert "b.png: is damaged" in bad["error"]
    first = (out / "a.png").read_bytes()

    # Only what failed, which is whole by now.
    save_photo(tmp_path / "in/b.png", size=(9, 9))
    assert main(["repeat", str(report), "--skip-existing", "--report", str(report), "-q"]) == 0
    assert size_of(out / "b.png") == (18, 18)
    assert [line["error"] for line in records(report)] == [None, bad["error"], None]

    # All again elsewhere: the same bytes, whatever the command line's defaults are.
    assert main(["repeat", str(report), "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/a.png").read_bytes() == first
    assert size_of(tmp_path / "again/b.png") == (18, 18)


def test_another_model_under_the_same_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_photo(tmp_path / "a.png")
    line = record(str(tmp_path / "a.png"))
    line["output"] = str(tmp_path / "b.png")
    (tmp_path / "run.jsonl").write_text(json.dumps(line))
    assert main(["repeat", str(tmp_path / "run.jsonl")]) == 2
    assert capsys.readouterr().err == (
        "upsr: error: the bundled model: is another model than the report's, of SHA-256 000000000000\n"
    )
    assert not (tmp_path / "b.png").exists()


def test_the_hash_is_of_weights_and_configuration(tiny_folder: Path) -> None:
    pipe = load_pipeline(tiny_folder)
    before = model_sha256(pipe)
    assert before == model_sha256(load_pipeline(tiny_folder))
    parameter = next(pipe.unet.parameters())
    parameter.data.view(-1)[0] = math.nextafter(parameter.view(-1)[0].item(), 9) + 1e-6
    assert model_sha256(pipe) != before
    other = load_pipeline(tiny_folder)
    other.scheduler.register_to_config(kappa=1.5)
    assert model_sha256(other) != before


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--tile", "off", "--background", "#ff8000", "--scale", "1.5", "--stochasticity", "0.5", "--variant", "fp16"],
        ["--noise-strength", "0", "--flat-threshold", "0", "--tile-overlap", "0"],
        [
            "--tile",
            "64",
            "--width",
            "300",
            "--color-fix",
            "adain",
            "--threads",
            "2",
            "--dtype",
            "float16",
            "--seed",
            "9",
        ],
    ],
)
def test_settings_come_back_as_they_were_given(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(json.dumps(record("a.png", *options)) + "\n")
    (group,) = read_report(tmp_path / "run.jsonl")
    again, given = parse_arguments([*group.arguments, "a.png"]), parse_arguments(["upscale", "a.png", *options])
    assert vars(again) == vars(given)
    assert settings_of(again) == settings_of(given)
    assert group.jobs == [Job(Path("a.png").absolute(), Path("out/a.png").absolute(), ".png")]


def test_the_last_line_of_a_result_counts_and_what_is_alike_runs_together(tmp_path: Path) -> None:
    lines = [record("a.png"), record("b.png"), record("a.png", "--seed", "1"), record("c.png", command="uncertainty")]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, lines)))
    groups = read_report(tmp_path / "run.jsonl", tmp_path / "again")
    assert [[job.target for job in group.jobs] for group in groups] == [
        [tmp_path / "again/a.png"],
        [tmp_path / "again/b.png"],
        [tmp_path / "again/c.png"],
    ]
    assert "--seed=1" in groups[0].arguments
    assert groups[2].arguments[0] == "uncertainty"


def test_results_of_several_folders_keep_them_elsewhere(tmp_path: Path) -> None:
    lines = [record("a.png"), record("a.png", "--steps", "5"), record("b.png")]
    for line, folder in zip(lines, ("x", "y/z", "x"), strict=True):
        line["output"] = str(tmp_path / folder / Path(line["output"]).name)
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, lines)))
    groups = read_report(tmp_path / "run.jsonl", tmp_path / "again")
    targets = [str(job.target.relative_to(tmp_path / "again")) for group in groups for job in group.jobs if job.target]
    assert targets == ["x/a.png", "x/b.png", "y/z/a.png"]


def test_a_failure_in_one_group_does_not_stop_the_others(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "run.jsonl"
    for name, steps in (("a", "1"), ("b", "2")):
        photo = save_photo(tmp_path / f"{name}.png")
        run = ["upscale", str(photo), "-o", str(tmp_path / f"{name}_4x.png"), "--steps", steps, *model]
        assert main([*run, "--report", str(report)]) == 0
    (tmp_path / "a.png").write_text("no image")
    assert main(["repeat", str(report), "-o", str(tmp_path / "again")]) == 1
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["b_4x.png"]
    assert "a.png: is damaged" in capsys.readouterr().err


def test_what_a_killed_run_has_left_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    whole = json.dumps(record("a.png"))
    path.write_text(whole + "\n" + whole[:40])
    ReportWriter(path).write(record("b.png"))
    (group,) = read_report(path)
    assert [job.source.name for job in group.jobs if job.source] == ["a.png", "b.png"]
    assert capsys.readouterr().err.count("line 2 is cut off") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tells of no images"),
        ("[]", "line 1 is none of a report"),
        ('{"command": "upscale"}', "line 1 is none of a report"),
        (json.dumps({**record(), "input": "-"}), "standard input or output, which cannot be repeated"),
        (json.dumps({**record(), "output": 3}), "must be texts"),
        (json.dumps({**record(), "command": "convert"}), "run.jsonl: "),
        (json.dumps({**record(), "settings": {"steps": "many"}}), "run.jsonl: .*--steps: must be a whole number"),
        (json.dumps({**record(), "settings": {"frames": 3}}), "run.jsonl: .*--frames=3"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.jsonl").write_text(text)
    assert main(["repeat", str(tmp_path / "run.jsonl")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(message, printed)


def test_another_file_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = save_photo(tmp_path / "a.png")
    before = photo.read_bytes()
    for place, message in {"a.png": "is no report of upsr", "none/run.jsonl": "cannot be written"}.items():
        assert main(["upscale", str(photo), "--report", str(tmp_path / place)]) == 2
        assert message in capsys.readouterr().err
    assert main(["repeat", str(tmp_path / "none.jsonl")]) == 2
    assert photo.read_bytes() == before
