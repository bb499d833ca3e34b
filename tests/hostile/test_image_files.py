"""Files that the command line is given as images: taken, or refused by one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile.image_files import (
    bmp,
    chunk,
    cut,
    damaged_exif,
    encoded,
    frames,
    holding,
    pixels,
    png,
    png_bomb,
    png_rows,
    profile_bomb,
    saved,
    text_bomb,
    tiff,
)
from tests.hostile.refusals import Row, contents, little_memory
from upsr_core.cli.main import main

RANDOM = np.random.default_rng(0).bytes(5000)
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF", "gif": "GIF", "bmp": "BMP"}
DAMAGED, OTHER, LARGE = "is damaged", "of a kind that cannot be read; convert it", "pixels, as decompression bombs do"

REFUSED = [
    Row("empty", holding("a.png", b""), "a.png", "a.png: is empty (0 bytes); get the file again"),
    Row("one byte", holding("a.png", b"\x89"), "a.png", OTHER),
    *(Row(f"random bytes {end}", holding(f"a.{end}", RANDOM), f"a.{end}", OTHER) for end in FORMATS),
    *(Row(f"half a {end}", cut(f"a.{end}", kind, 0.5), f"a.{end}", DAMAGED) for end, kind in FORMATS.items()),
    *(Row(f"head of a {end}", cut(f"a.{end}", kind, 0.03), f"a.{end}", "a.") for end, kind in FORMATS.items()),
    Row("text", holding("a.png", b"hello " * 100), "a.png", OTHER),
    Row("web page", holding("a.jpg", b"<!DOCTYPE html><html>404</html>"), "a.jpg", OTHER),
    Row("drawing", holding("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "a.png", OTHER),
    Row("PostScript", holding("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "a.png", OTHER),
    Row("PDF", holding("a.jpg", b"%PDF-1.7\n1 0 obj"), "a.jpg", OTHER),
    Row("shell script", holding("a.bmp", b"#!/bin/sh\ntouch ran\n"), "a.bmp", OTHER),
    Row("pixels said, PNG", holding("a.png", png(50_000, 50_000)), "a.png", LARGE),
    Row("pixels said, one line, PNG", holding("a.png", png(2**31 - 1, 1)), "a.png", LARGE),
    Row("pixels said, TIFF", holding("a.tif", tiff(60_000, 60_000)), "a.tif", LARGE),
    Row("pixels said, BMP", holding("a.bmp", bmp(60_000, 60_000)), "a.bmp", LARGE),
    Row("pixels said, GIF", holding("a.gif", b"GIF89a\xff\xff\xff\xff\0\0\0;"), "a.gif", "a.gif: "),
    Row("no width", holding("a.png", png(0, 7)), "a.png", "a.png: is damaged"),
    Row("no pixels in it", holding("a.png", png(20, 13)), "a.png", DAMAGED),
    Row("wrong checksum", holding("a.png", png_rows(3)[:-20] + bytes(20)), "a.png", DAMAGED),
    Row("profile bomb", holding("a.png", profile_bomb), "a.png", DAMAGED),
    Row("text bomb", holding("a.png", text_bomb), "a.png", DAMAGED),
    Row("TIFF without pages", holding("a.tif", b"II*\0\x08\0\0\0\0\0\0\0\0\0"), "a.tif", "a.tif: "),
    Row("TIFF that points outside", holding("a.tif", tiff(20, 13, offset=10**6)), "a.tif", "a.tif: "),
    Row("BigTIFF", holding("a.tif", b"II+\0\x08\0\0\0" + bytes(99)), "a.tif", "a.tif: is a BigTIFF"),
    Row(
        "float TIFF",
        saved("a.tif", lambda: Image.fromarray(np.zeros((9, 9), np.float32))),
        "a.tif",
        "a.tif: its values are not 8 or 16 bits, unsigned; convert it",
    ),
    Row("LAB", saved("a.tif", lambda: Image.new("LAB", (9, 9))), "a.tif", "a.tif: its pixels are LAB"),
    Row(
        "folder called an image",
        lambda folder: (folder / "a.png").mkdir(),
        "a.png",
        "a.png: a folder needs -o FOLDER for the results",
    ),
]

# A word of the warning that is to come, or nothing.
TAKEN = [
    Row("wrong extension", holding("a.png", encoded("JPEG")), "a.png", ""),
    Row("animated GIF", frames("a.gif"), "a.gif", "a.gif: has 3 frames or pages; only the first is read"),
    Row("animated PNG", frames("a.png"), "a.png", "a.png: has 3 frames or pages; only the first is read"),
    Row("animated WebP", frames("a.webp"), "a.webp", "a.webp: has 3 frames or pages; only the first is read"),
    Row("TIFF of three pages", frames("a.tif"), "a.tif", "a.tif: has 3 frames or pages; only the first is read"),
    Row("TIFF whose next page is itself", holding("a.tif", tiff(20, 13, following=8)), "a.tif", ""),
    Row("CMYK", holding("a.jpg", encoded("JPEG", "CMYK")), "a.jpg", "a.jpg: is CMYK and was converted to sRGB"),
    Row("corrupt EXIF", holding("a.jpg", damaged_exif), "a.jpg", "a.jpg: its EXIF data were left out"),
    Row("corrupt profile", holding("a.png", encoded("PNG", icc_profile=RANDOM)), "a.png", ""),
    Row("pixel bomb", holding("a.png", png_bomb), "a.png", ""),
    Row("gray with alpha, 16 bits", holding("a.png", png_rows(2, 16)), "a.png", ""),
    Row(
        "palette with transparency",
        saved("a.png", lambda: Image.fromarray(pixels()).quantize(16), transparency=bytes(range(0, 160, 10))),
        "a.png",
        "",
    ),
    Row("transparent colour", holding("a.png", png_rows(3, extra=chunk(b"tRNS", bytes(6)))), "a.png", ""),
    Row("one pixel", holding("a.png", png(1, 1, body=b"\0abc")), "a.png", ""),
    Row("one line", holding("a.png", png(300, 1, body=b"\0" + b"abc" * 300)), "a.png", ""),
]


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_refused_by_one_line(
    row: Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row.make(tmp_path)
    before = contents(tmp_path)
    with little_memory():
        status = main(["upscale", row.arguments, "--model", str(tiny_folder), "--device", "cpu"])
    printed = capsys.readouterr()
    assert status == 2
    (line,) = printed.err.splitlines()
    assert line.startswith("upsr: error: ")
    assert row.expected in line
    assert contents(tmp_path) == before


@pytest.mark.parametrize("row", TAKEN, ids=str)
def test_taken_and_what_is_odd_is_said(
    row: Row, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row.make(tmp_path)
    command = ["upscale", row.arguments, "-o", "out.png", "--steps", "1", "--model", str(tiny_folder)]
    with little_memory():
        status = main([*command, "--device", "cpu"])
    printed = capsys.readouterr()
    assert status == 0
    assert all(line.startswith("upsr: warning: a.") for line in printed.err.splitlines())
    assert row.expected in printed.err
    assert bool(row.expected) == bool(printed.err)
    with Image.open(row.arguments) as image, Image.open("out.png") as result:
        assert result.size == (4 * image.width, 4 * image.height)


def test_a_folder_of_them_all_names_each_and_makes_the_rest(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = set()
    for row in REFUSED[:8]:
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        row.make(folder)
        (tmp_path / "in").mkdir(exist_ok=True)
        name = f"{len(names)}-{row.arguments}"
        (folder / row.arguments).rename(tmp_path / "in" / name)
        names.add(name)
    (tmp_path / "in" / "good.png").write_bytes(encoded("PNG"))
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--steps", "1"]
    assert main([*command, "--model", str(tiny_folder), "--device", "cpu"]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]
    *_, summary = capsys.readouterr().err.split("upsr: error: ")
    head, *details = summary.splitlines()
    assert head == f"{len(names)} of {len(names) + 1} images failed"
    assert [Path(line.split(": ")[0].strip()).name for line in details] == sorted(names)
