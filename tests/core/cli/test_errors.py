"""Wrong usage and input: one line that says what to do, status 2, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.core.cli.photos import files_in, save_photo
from upsr_core.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["enlarge"], "invalid choice: 'enlarge'"),
        (["upscale"], "IN"),
        (["upscale", "photo.png", "--frames", "3"], "--frames"),
        (["upscale", "photo.png", "--steps", "0"], "--steps: must be a whole number of at least 1, got '0'"),
        (["upscale", "photo.png", "--steps", "6"], "num_inference_steps must be a whole number from 1 to 5"),
        (["upscale", "photo.png", "--seed", "x"], "--seed: must be a whole number"),
        (["upscale", "photo.png", "--stochasticity", "nan"], "must be a number from 0 to 1"),
        (["upscale", "photo.png", "--noise-strength", "-1"], "must be a number from 0 to 100"),
        (["upscale", "photo.png", "--tile", "big"], "--tile: must be auto, off or a number of pixels"),
        (["upscale", "photo.png", "--tile", "16", "--tile-overlap", "16"], "smaller than --tile 16"),
        (["upscale", "photo.png", "--tile", "17"], "--tile 17 must be a multiple of"),
        (["upscale", "photo.png", "--scale", "17"], "--scale: must be a number from 0.01 to 16"),
        (["upscale", "photo.png", "--format", "gif"], "--format"),
        (["upscale", "photo.png", "--quality", "0"], "--quality: must be a whole number from 1 to 100"),
        (["upscale", "photo.png", "--background", "nocolour"], "must be a colour"),
        (["upscale", "photo.png", "--device", "toaster"], "--device toaster: no such kind of device"),
        (["upscale", "photo.png", "--device", "cuda:99"], "--device cuda:99: not available here"),
        (["upscale", "photo.png", "--model", "nowhere"], "nowhere: no such model folder"),
        (["upscale", "missing.png"], "missing.png: no such file or folder"),
        (["upscale", "missing.png", "-o", "out.png"], "missing.png: no such file or folder"),
        (["upscale", "*.tif"], "*.tif: no file matches this pattern"),
        (["upscale", "hollow", "-o", "out"], "hollow: no images in this folder"),
        (["upscale", "."], "a folder needs -o FOLDER"),
        (["upscale", ".", "-o", "."], "would overwrite an input"),
        (["upscale", "photo.png", "-o", "photo.png"], "photo.png: would overwrite an input"),
        (["upscale", "photo.png", "-o", "link.png"], "link.png: would overwrite an input"),
        (["upscale", "photo.png", "-o", "result"], "result: no known image type"),
        (["upscale", "photo.png", "-o", "out.png", "--format", "jpg"], "does not agree with the format jpg"),
        (["upscale", "photo.png", "-o", "nowhere/out.png"], "no such folder nowhere"),
        (["upscale", "photo.png", "-o", "empty.png/"], "empty.png"),
        (["upscale", "photo.png", "text.png", "-o", "out.png"], "several inputs need a folder"),
        (["upscale", "photo.png", "photo.webp", "-o", "out", "--format", "png"], "both results would be"),
        (["upscale", "empty.png"], "empty.png: is empty"),
        (["upscale", "text.png"], "text.png: "),
        (["upscale", "cut.png"], "cut.png: is damaged"),
        (["uncertainty", "text.png", "-o", "map.png"], "text.png: "),
        (["uncertainty", "photo.png", "--psi-max", "0"], "--psi-max: must be a number from"),
        (["convert", "a.pth", "out"], "convert takes DENOISER SR_NET OUT"),
        (["convert", "a.pth", "b.pth", "out"], "a.pth"),
        (["convert", "--to-published", "nowhere", "out"], "nowhere: no such model folder"),
        (
            ["convert", "--to-published", "hollow", "out", "--config", "x"],
            "takes FOLDER OUT and nothing else",
        ),
        (["info", "nowhere"], "nowhere: no such model folder"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    model: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = save_photo(Path("photo.png"))
    save_photo(Path("photo.webp"))
    Path("link.png").hardlink_to(photo)
    Path("hollow").mkdir()
    Path("empty.png").write_bytes(b"")
    Path("text.png").write_text("no image at all")
    Path("cut.png").write_bytes(photo.read_bytes()[:200])
    before = {path: Path(path).read_bytes() for path in files_in(Path())}
    uses_model = arguments[:1] in (["upscale"], ["uncertainty"])
    # Options of the case come last and so replace the usual ones.
    assert main([*arguments[:1], *(model if uses_model else []), *arguments[1:]]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("upsr: error: ")
    assert printed.count("\n") == 1
    assert message in printed
    assert {path: Path(path).read_bytes() for path in files_in(Path())} == before


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "exit status:" in printed
    for command in ("upscale", "uncertainty", "repeat", "convert", "info", "doctor"):
        assert command in printed
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert f"examples:\n  upsr {command}" in text
        assert "130 interrupted" in text


def test_real_process_reports_one_line_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "upsr_core.cli", "upscale", str(tmp_path / "missing.png")]
    root = Path(__file__).parents[3]
    process = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr == f"upsr: error: {tmp_path / 'missing.png'}: no such file or folder\n"


def test_a_reader_that_leaves_early_is_no_error(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["info", str(tiny_folder)]) == 1
    assert capsys.readouterr().err == ""


def test_larger_images_than_allowed_are_refused(
    model: list[str], photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    assert main(["upscale", str(photo), "--max-pixels", "259", *model]) == 2
    assert "has more than 259 pixels" in capsys.readouterr().err
    assert main(["upscale", str(photo), "--max-pixels", "260", *model]) == 0
