from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.cli.photos import save_photo
from upsr_core.cli.main import main
from upsr_core.cli.output import complain, say
from upsr_core.messages import one_line, printable


@pytest.fixture(scope="module")
def model_options(tiny_folder: Path) -> list[str]:
    return ["--model", str(tiny_folder), "--device", "cpu"]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[31m\nb\t\x7f") == "a\\x1b[31m\\nb\\t\\x7f"
    assert printable("Grüße, 写真 .png") == "Grüße, 写真 .png"


def test_a_name_that_the_stream_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    say("ü.png \udcff")
    assert written.getvalue() == b"\\xfc.png \\udcff\n"


def test_a_closed_stream_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears it")
    complain("nobody hears it")


def test_long_messages_are_cut() -> None:
    text = one_line(ValueError("key, " * 5000))
    assert len(text) < 600
    assert text.endswith("more characters)")


def test_every_name_is_upscaled_whatever_it_holds(
    tmp_path: Path, model_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["esc\x1b[31m.png", "new\nline.png", os.fsdecode(b"not-utf8-\xff.png"), "-dash.png"]
    for name in names:
        save_photo(tmp_path / "in" / name)
    assert main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *model_options]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert len(printed.splitlines()) == len(names)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_output_does_not_stop_the_images(
    tmp_path: Path, model_options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / "in" / name)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *model_options]) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}
    assert capsys.readouterr().err.splitlines() == [
        "upsr: error: the output cannot be written (No space left on device); the images are made"
    ]


def test_a_wrong_command_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from upsr_core.cli.main import main; status = main(sys.argv[1:]); "
        "print(status, {'torch', 'diffusers', 'cv2'} & set(sys.modules))"
    )
    for arguments in (["upscale", str(tmp_path / "none.png")], ["upscale", "--bogus"], ["nonsense"], ["upscale", ""]):
        run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert run.stdout == "2 set()\n"
        assert len(run.stderr.splitlines()) == 1


def test_empty_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = save_photo(tmp_path / "a.png")
    assert main(["upscale", ""]) == 2
    assert main(["upscale", str(photo), "-o", ""]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "upsr: error: an input is empty; is a variable of the shell not set?",
        "upsr: error: -o is empty; is a variable of the shell not set?",
    ]


def test_a_pattern_can_be_run_again(
    tmp_path: Path, model_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_photo(tmp_path / "a.png")
    command = ["upscale", str(tmp_path / "*.png"), *model_options]
    assert main(command) == 0
    assert main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a_upscaled.png"}
    (tmp_path / "a.png").unlink()
    assert main(command) == 2
    assert "matches only earlier results" in capsys.readouterr().err


def test_an_interrupt_before_anything_is_loaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save_photo(tmp_path / "a.png")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("upsr_core.cli.main.prepare_folders", interrupt)
    assert main(["upscale", str(photo)]) == 130
    assert capsys.readouterr().err == "upsr: interrupted\n"
