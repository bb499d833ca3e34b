"""Standard input and output, and what is printed where."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.core.cli.photos import save_photo
from upsr_core.cli.main import main


class Stream:
    """A text stream over bytes, as a process has it."""

    def __init__(self, data: bytes = b"", terminal: bool = False):
        self.buffer, self.encoding, self.closed, self.terminal = io.BytesIO(data), "utf-8", False, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        return self.buffer.write(text.encode())

    def flush(self) -> None: ...


@pytest.fixture
def run(tiny_folder: Path) -> list[str]:
    return ["--steps", "1", "--model", str(tiny_folder), "--device", "cpu"]


def pipe_through(monkeypatch: pytest.MonkeyPatch, arguments: list[str], data: bytes = b"") -> tuple[int, bytes]:
    out = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(data))
    monkeypatch.setattr(sys, "stdout", out)
    return main(arguments), out.buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "made"), [("webp", [], "WEBP"), ("gif", [], "PNG"), ("png", ["-f", "jpg"], "JPEG")]
)
def test_from_standard_input_to_standard_output(
    kind: str, options: list[str], made: str, run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    photo, file = save_photo(tmp_path / f"a.{kind}", "RGB"), tmp_path / f"b.{made.lower()}"
    status, data = pipe_through(monkeypatch, ["upscale", "-", "-o", "-", *options, *run], photo.read_bytes())
    assert status == 0
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (made, (80, 52))
    assert capsys.readouterr().err == ""
    assert main(["upscale", str(photo), "-o", str(file), *run]) == 0
    assert file.read_bytes() == data


def test_one_end_alone(run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save_photo(tmp_path / "a.png")
    status, line = pipe_through(monkeypatch, ["upscale", "-", "-o", str(tmp_path / "b.png"), *run], photo.read_bytes())
    assert status == 0
    assert line.decode().startswith(f"(standard input) -> {tmp_path / 'b.png'} (80x52, ")
    status, data = pipe_through(monkeypatch, ["upscale", str(photo), "-o", "-", *run])
    assert status == 0
    assert data == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(("data", "message"), [(b"", "is empty"), (b"text", "is damaged or of a kind")])
def test_bad_input_is_one_line_and_no_bytes(
    data: bytes, message: str, run: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipe_through(monkeypatch, ["upscale", "-", "-o", "-", *run], data) == (2, b"")
    printed = capsys.readouterr().err
    assert printed.startswith(f"upsr: error: (standard input): {message}")
    assert printed.count("\n") == 1


def test_a_terminal_gets_no_image(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = save_photo(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdout", Stream(terminal=True))
    assert main(["upscale", str(photo), "-o", "-", *run]) == 2
    assert "the standard output is a terminal" in capsys.readouterr().err


def test_only_warnings_of_ours_unless_verbose(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging
    import warnings

    from upsr_core.cli import commands

    save_photo(tmp_path / "in/a.png")
    Image.new("CMYK", (8, 6)).save(tmp_path / "in/b.jpg")
    load = commands.load_pipeline

    def noisy(*args: Any, **options: Any) -> Any:
        warnings.warn("from a library", stacklevel=1)
        logging.getLogger("a.library").warning("logged by a library")
        logging.getLogger("upsr_core.tiled_run").warning("smaller tiles")
        return load(*args, **options)

    monkeypatch.setattr(commands, "load_pipeline", noisy)
    folder = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-f", "png", *run]
    assert main([*folder, "-q"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "upsr: warning: smaller tiles",
        f"upsr: warning: {tmp_path / 'in/b.jpg'}: is CMYK and was converted to sRGB",
    ]
    assert main([*folder, "-v"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "upsr: warning: from a library" in printed.err


def test_two_runs_into_one_folder_do_not_spoil_each_other(run: list[str], tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(12)]
    for seed, name in enumerate(names):
        save_photo(tmp_path / "in" / name, seed=seed, size=(8, 8))
    out, report = tmp_path / "out", tmp_path / "run.jsonl"
    command = ["upscale", str(tmp_path / "in"), *run]
    both = [*command, "-o", str(out), "--report", str(report)]
    with subprocess.Popen([sys.executable, "-m", "upsr_core.cli", *both], stderr=subprocess.PIPE) as other:
        while not list(out.glob("*.png")):
            assert other.poll() is None
            time.sleep(0.002)
        assert main([*both, "--skip-existing", "-q"]) == 0
        assert (other.communicate()[1], other.returncode) == (b"", 0)
    assert main([*command, "-o", str(tmp_path / "alone"), "-q"]) == 0
    assert {path.name for path in out.iterdir()} == set(names)
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    lines = report.read_text().splitlines()
    assert all(line.startswith('{"command"') and line.endswith("}") for line in lines)
    assert len(names) <= len(lines) <= 2 * len(names)


def test_an_interrupted_folder_says_what_is_done(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from upsr_core.cli import commands

    for name in ("a.png", "b.png", "c.png"):
        save_photo(tmp_path / "in" / name)
    read = commands.read_job

    def interrupt_at_b(job: Any) -> Any:
        if job.source.name == "b.png":
            raise KeyboardInterrupt
        return read(job)

    folder = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *run]
    with monkeypatch.context() as patch:
        patch.setattr(commands, "read_job", interrupt_at_b)
        assert main(folder) == 130
    assert capsys.readouterr().err == (
        "upsr: interrupted: 1 of 3 images are made; --skip-existing goes on from there\n"
    )
    assert main([*folder, "--skip-existing"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_folder_holds_one_image_at_a_time(run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from upsr_core.cli import commands

    for number in range(12):
        save_photo(tmp_path / "in" / f"{number}.png", size=(8, 8))
    read, images, alive = commands.read_job, [], []

    def watched(job: Any) -> Any:
        alive.append(sum(reference() is not None for reference in images))
        image = read(job)
        images.append(weakref.ref(image))
        return image

    monkeypatch.setattr(commands, "read_job", watched)
    assert main(["uncertainty", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *run[2:]]) == 0
    assert len(alive) == 12
    assert max(alive) == 0
