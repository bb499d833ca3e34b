"""Options and paths that the command line must refuse by one line, or bear."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile.image_files import Maker, encoded, holding
from tests.hostile.refusals import Row, contents, files_of_at_most, little_memory
from upsr_core.cli.main import main

HUGE = "9" * 40
TEMPORARY = Path(tempfile.gettempdir()).resolve()
# For each option what is wrong with these: NaN, infinity, negative, nothing, fraction, text.
NUMBERS = {
    "--seed": ("nan", "inf", "-1", "", "0.5", "x", HUGE),
    "--steps": ("nan", "inf", "-1", "", "0.5", "x", "0"),
    "--stochasticity": ("nan", "inf", "-0.1", "", "x", "1e400", HUGE),
    "--flat-threshold": ("nan", "-1", "", "x", "1.5"),
    "--noise-strength": ("nan", "inf", "-1", "", "x", "1e400", "1e300", HUGE),
    "--scale": ("nan", "inf", "-1", "", "x", "0", "1e-300"),
    "--width": ("nan", "inf", "-1", "", "0.5", "x", "0"),
    "--quality": ("nan", "inf", "-1", "", "0.5", "x", "0", HUGE),
    "--max-pixels": ("nan", "inf", "-1", "", "0.5", "x", "0"),
    "--threads": ("nan", "inf", "-1", "", "0.5", "x", "0", HUGE),
    "--tile-overlap": ("nan", "inf", "-1", "", "0.5", "x"),
    "--tile": ("nan", "inf", "-1", "", "0.5", "x", "0"),
}


def several(*makers: Maker) -> Maker:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


PHOTO = holding("a.png", encoded("PNG"))


def link(name: str, target: str) -> Maker:
    return lambda folder: (folder / name).symlink_to(target)


def subfolder(name: str, maker: Maker) -> Maker:
    def make(folder: Path) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        maker(folder / name)

    return make


OPTIONS = [
    *(
        Row(f"{option}={value[:6]}", PHOTO, ["upscale", "a.png", f"{option}={value}"], f"{option}: must be ")
        for option, values in NUMBERS.items()
        for value in values
    ),
    *(
        Row(f"--psi-max={value}", PHOTO, ["uncertainty", "a.png", f"--psi-max={value}"], "--psi-max: must be a number")
        for value in ("nan", "inf", "-1", "0", "1e-300", "2")
    ),
    Row("--steps huge", PHOTO, ["upscale", "a.png", "--steps", HUGE], "must be a whole number from 1 to 5"),
    Row("--scale huge", PHOTO, ["upscale", "a.png", "--scale", HUGE], "--scale: must be a number from 0.01 to 16"),
    Row("--scale above", PHOTO, ["upscale", "a.png", "--scale", "16.01"], "--scale: must be a number from 0.01 to 16"),
    Row("--width huge", PHOTO, ["upscale", "a.png", "--width", HUGE], "is more than 16 times its 20 pixels"),
    Row("--tile odd", PHOTO, ["upscale", "a.png", "--tile", "33"], "--tile 33 must be a multiple of"),
    Row(
        "--tile-overlap huge",
        PHOTO,
        ["upscale", "a.png", "--tile", "32", "--tile-overlap", HUGE],
        "must be smaller than --tile 32",
    ),
    Row("no such type", PHOTO, ["upscale", "a.png", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
    Row("no device", PHOTO, ["upscale", "a.png", "--device", ""], "--device : no such kind of device"),
    Row("no such device", PHOTO, ["upscale", "a.png", "--device", "tpu9"], "--device tpu9: no such kind of device"),
    Row("device not here", PHOTO, ["upscale", "a.png", "--device", "cuda:7"], "--device cuda:7: not available here"),
    Row("device of no kind", PHOTO, ["upscale", "a.png", "--device", "meta"], "--device meta: not available here"),
    Row("second processor", PHOTO, ["upscale", "a.png", "--device", "cpu:9"], "--device cpu:9: not available here"),
    Row("device below 0", PHOTO, ["upscale", "a.png", "--device", "cpu:-1"], "--device cpu:-1: no such kind of device"),
    Row("no colour", PHOTO, ["upscale", "a.png", "--background", "#12"], "must be a colour such as white"),
    Row("format of no kind", PHOTO, ["upscale", "a.png", "--format", "exe"], "argument -f/--format: invalid choice"),
    Row("no variant", PHOTO, ["upscale", "a.png", "--variant", "fp8"], "fp8"),
    Row("variant elsewhere", PHOTO, ["upscale", "a.png", "--variant", "../../etc"], "cannot be loaded as a UPSR model"),
    Row("no command", PHOTO, ["upscal", "a.png"], "invalid choice: 'upscal'"),
    Row("no option", PHOTO, ["upscale", "a.png", "--stps", "3"], "unrecognized arguments: --stps"),
    Row("an image as the model", PHOTO, ["upscale", "a.png", "--model", "a.png"], "a.png: no such model folder"),
    Row("nothing as the model", PHOTO, ["upscale", "a.png", "--model", ""], "the model's name is empty"),
    Row("bytes as the model", PHOTO, ["upscale", "a.png", "--model", "a\0b"], "no such model folder"),
]

PATHS = [
    Row("missing", PHOTO, ["upscale", "b.png"], "b.png: no such file or folder"),
    Row("one of two is missing", PHOTO, ["upscale", "a.png", "b.png", "-o", "out"], "b.png: no such file or folder"),
    Row("newline in a name", PHOTO, ["upscale", "b\nc.png"], "b c.png: no such file"),
    Row("escape code in a name", PHOTO, ["upscale", "b\x1b[31m.png"], "b\\x1b[31m.png: no file matches"),
    Row("no text in a name", PHOTO, ["upscale", os.fsdecode(b"\xff.png")], "\\udcff.png: no such file"),
    Row("zero byte in a name", PHOTO, ["upscale", "b\0.png"], "b\\x00.png: no such file"),
    Row("name of 5,000 letters", PHOTO, ["upscale", "b" * 5000], "bbb"),
    Row("leading dash", PHOTO, ["upscale", "-b.png"], "see upsr upscale --help"),
    Row("broken link", link("a.png", "nowhere"), ["upscale", "a.png"], "a.png: no such file"),
    Row("link to itself", link("a.png", "a.png"), ["upscale", "a.png"], "a.png: "),
    Row("links in a circle", several(link("a.png", "b.png"), link("b.png", "a.png")), ["upscale", "a.png"], "a.png: "),
    Row("nothing but a loop", link("in", "in"), ["upscale", "in", "-o", "out"], "in: "),
    Row("folder without images", lambda f: (f / "in").mkdir(), ["upscale", "in", "-o", "out"], "no images in this"),
    Row("folder without -o", subfolder("in", PHOTO), ["upscale", "in"], "in: a folder needs -o FOLDER"),
    Row("pattern that is none", PHOTO, ["upscale", "[", "-o", "out"], "[: no file matches this pattern"),
    Row("pattern of nothing", PHOTO, ["upscale", "**/*.tif"], "**/*.tif: no file matches this pattern"),
    Row("device as the input", PHOTO, ["upscale", "/dev/zero"], "/dev/zero: is not a regular file"),
    Row("result over its input", PHOTO, ["upscale", "a.png", "-o", "a.png"], "a.png: would overwrite an input"),
    Row("by another way", PHOTO, ["upscale", "a.png", "-o", "./x/../a.png"], "a.png: "),
    Row(
        "by a link",
        several(PHOTO, link("b.png", "a.png")),
        ["upscale", "a.png", "-o", "b.png"],
        "b.png: would overwrite an input",
    ),
    Row("into its own folder", subfolder("in", PHOTO), ["upscale", "in", "-o", "in"], "would overwrite an input"),
    Row(
        "two into one name",
        several(PHOTO, holding("a.jpg", encoded("JPEG"))),
        ["upscale", "a.png", "a.jpg", "-o", "out", "--format", "webp"],
        "a.png and a.jpg: both results would be out/a.webp",
    ),
    Row(
        "results through a loop", several(PHOTO, link("out", "out")), ["upscale", "a.png", "-o", "out/"], "out: cannot"
    ),
    Row("result below a file", PHOTO, ["upscale", "a.png", "-o", "a.png/b.png"], "a.png/b.png: no such folder"),
    Row("results below a file", PHOTO, ["upscale", "a.png", "-o", "a.png/b/"], "a.png"),
    Row("result in no folder", PHOTO, ["upscale", "a.png", "-o", "x/b.png"], "no such folder x"),
    Row("result of no kind", PHOTO, ["upscale", "a.png", "-o", "b.exe"], "b.exe: no known image type"),
    Row("full device as the result", PHOTO, ["upscale", "a.png", "-o", "/dev/full"], "/dev/full: no known image type"),
    Row("full device as the folder", PHOTO, ["upscale", "a.png", "-o", "/dev/full/"], "/dev/full: is a file"),
    Row("result with too long a name", PHOTO, ["upscale", "a.png", "-o", "b" * 300 + ".png"], "File name too long"),
    Row("no input", PHOTO, ["upscale"], "the following arguments are required: IN"),
    Row("empty input", PHOTO, ["upscale", ""], "an input is empty"),
    Row("empty output", PHOTO, ["upscale", "a.png", "-o", ""], "-o is empty"),
]


def command(row: Row, model: Path) -> list[str]:
    """With the small model, unless the row names one of its own."""
    name, *rest = row.arguments
    return [name, *(["--model", str(model), "--device", "cpu"] if name in ("upscale", "uncertainty") else []), *rest]


@pytest.mark.parametrize("row", [*OPTIONS, *PATHS], ids=str)
def test_refused_by_one_line(
    row: Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row.make(tmp_path)
    before = contents(tmp_path)
    with little_memory():
        status = main(command(row, tiny_folder))
    printed = capsys.readouterr()
    assert status == 2
    (line,) = printed.err.splitlines()
    assert line.startswith("upsr: error: ")
    assert len(line) < 700
    assert row.expected in line
    assert contents(tmp_path) == before


BORNE = [
    Row("leading dash after --", holding("-a.png", encoded("PNG")), ["-o", "out.png", "--", "-a.png"], "out.png"),
    Row("newline", holding("a\nb.png", encoded("PNG")), ["a\nb.png"], "a\nb_upscaled.png"),
    Row("other scripts", holding("写真 ü.png", encoded("PNG")), ["写真 ü.png"], "写真 ü_upscaled.png"),
    Row("no text", holding(os.fsdecode(b"\xff.png"), encoded("PNG")), ["."], os.fsdecode(b"out/\xff.png")),
    Row("brackets", holding("[1].png", encoded("PNG")), ["[1].png"], "[1]_upscaled.png"),
    Row("link", several(PHOTO, link("b.png", "a.png")), ["b.png"], "b_upscaled.png"),
    Row("broken link as the result", several(PHOTO, link("b.png", "nowhere")), ["a.png", "-o", "b.png"], "b.png"),
    Row("link to itself as the result", several(PHOTO, link("b.png", "b.png")), ["a.png", "-o", "b.png"], "b.png"),
    Row("loop in the folder", subfolder("in", several(PHOTO, link("loop", "."))), ["in", "-r"], "out/a.png"),
    Row("folder called an image in it", several(PHOTO, lambda f: (f / "b.png").mkdir()), ["."], "out/a.png"),
    Row("broken link in the folder", several(PHOTO, link("b.png", "nowhere")), ["."], "out/a.png"),
    Row("circle in the folder", several(PHOTO, link("b.png", "c.png"), link("c.png", "b.png")), ["."], "out/a.png"),
    Row("twice the same", PHOTO, ["a.png", "./a.png", "*.png"], "out/a.png"),
    Row("--width 1", PHOTO, ["a.png", "--width", "1"], "a_upscaled.png"),
    Row("--tile larger than all", PHOTO, ["a.png", "--tile", str(32 * 10**30)], "a_upscaled.png"),
    Row("--tile-overlap larger than all", PHOTO, ["a.png", "--tile-overlap", HUGE], "a_upscaled.png"),
    Row("--max-pixels huge", PHOTO, ["a.png", "--max-pixels", HUGE], "a_upscaled.png"),
    Row("the largest seed", PHOTO, ["a.png", "--seed", str(2**64 - 1)], "a_upscaled.png"),
]


@pytest.mark.parametrize("row", BORNE, ids=str)
def test_borne(
    row: Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row.make(tmp_path)
    before = contents(tmp_path)
    out = ["-o", "out"] if row.expected.startswith("out/") else []
    options = ["--model", str(tiny_folder), "--device", "cpu", "--steps", "1"]
    with little_memory():
        status = main(["upscale", *options, *out, *row.arguments])
    assert (status, capsys.readouterr().err) == (0, "")
    after = contents(tmp_path)
    assert {name for name in after if name not in before and name != "out"} | {row.expected} == {row.expected}
    assert all(after[name] == before[name] for name in before if name != row.expected)
    assert after[row.expected][1]


@contextmanager
def nobody() -> Iterator[None]:
    """As one who is not root, who may do anything."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("forbid", "arguments", "expected"),
    [
        (lambda f: (f / "in/a.png").chmod(0), ["in/a.png"], "in/a.png: cannot be read (Permission denied); check"),
        (lambda f: (f / "out").chmod(0o555), ["in/a.png", "-o", "out/"], "out: no permission to write there"),
        (
            lambda f: (f / "out").chmod(0o555),
            ["in/a.png", "-o", "out/b/"],
            "out/b: cannot be created (Perm",
        ),
        (lambda f: (f / "out").chmod(0o555), ["in/a.png", "-o", "out/b.png"], "out: no permission to write there"),
        (lambda f: (f / "in").chmod(0), ["in", "-o", "out"], "in: Permission denied"),
        (lambda f: (f / "in").chmod(0), ["in/a.png"], "in/a.png: Permission denied"),
    ],
    ids=["input", "folder", "new folder", "file", "folder of inputs", "input in a closed folder"],
)
def test_no_permission(
    forbid: Callable[[Path], None],
    arguments: list[str],
    expected: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [tmp_path / "in", tmp_path / "out"]
    for folder in folders:
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
    PHOTO(tmp_path / "in")
    # Pytest's folders are for their owner alone.
    above = [path for folder in (tmp_path, tiny_folder) for path in folder.parents if TEMPORARY in path.parents]
    for path in (tmp_path, *above, tiny_folder, *tiny_folder.rglob("*")):
        path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    forbid(tmp_path)
    try:
        with nobody():
            status = main(["upscale", *arguments, "--model", str(tiny_folder), "--device", "cpu"])
    finally:
        for folder in folders:
            folder.chmod(0o777)
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2
    assert line.startswith("upsr: error: ")
    assert expected in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_a_full_disk_leaves_the_earlier_result_and_is_told_for_each(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        subfolder("in", holding(name, encoded("PNG")))(tmp_path)
    subfolder("out", holding("a.png", b"earlier"))(tmp_path)
    before = contents(tmp_path)
    command = ["upscale", "in", "-o", "out", "--steps", "1", "--model", str(tiny_folder), "--device", "cpu"]
    with files_of_at_most(1000):
        status = main(command)
    *_, head, first, second = capsys.readouterr().err.splitlines()
    assert (status, head) == (1, "upsr: error: 2 of 2 images failed")
    for line, name in ((first, "a.png"), (second, "b.png")):
        assert f"out/{name}: cannot be written (File too large); free some space or write elsewhere" in line
    assert contents(tmp_path) == before
