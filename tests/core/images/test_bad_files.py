from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.core.images.pictures import decoded, png, random_array, save
from upsr_core.images.files import DecodedImage, ImageFileError, check_output, read_image, write_image


def _noise_file(path: Path, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_array((64, 64, 3))).save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.95])
def test_truncated_file_is_one_line_that_names_it(tmp_path: Path, file_format: str, share: float) -> None:
    data = _noise_file(tmp_path, file_format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageFileError, match=r"cut\.img: is damaged") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_truncated_16_bit_file(tmp_path: Path, share: float, name: str) -> None:
    write_image(tmp_path / name, decoded(random_array((64, 64, 3), np.uint16)))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageFileError, match=f"{name}: is damaged"):
        read_image(tmp_path / name)


def test_damage_in_the_middle(tmp_path: Path) -> None:
    for depth in (np.uint8, np.uint16):
        write_image(tmp_path / "a.png", decoded(random_array((64, 64, 3), depth)))
        data = bytearray((tmp_path / "a.png").read_bytes())
        data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
        (tmp_path / "a.png").write_bytes(bytes(data))
        with pytest.raises(ImageFileError, match=r"a\.png: is damaged"):
            read_image(tmp_path / "a.png")


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name, message in {
        "text.png": r"text\.png: is damaged or of a kind that cannot be read; convert it to PNG, JPEG",
        "empty.png": r"empty\.png: is empty \(0 bytes\); get the file again",
        "folder.png": r"folder\.png: is a folder; name an image file in it",
        "none.png": r"none\.png: no such file; check the name",
        "text.png/a.png": r"text\.png/a\.png: ",
    }.items():
        with pytest.raises(ImageFileError, match=message):
            read_image(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageFileError, match=r"pipe\.png: is not a regular file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("times", [1.1, 3])
def test_decompression_bomb_is_refused_by_its_header(tmp_path: Path, depth: int, times: float) -> None:
    # Above Pillow's limit, where it only warns, and above twice of it, where it refuses.
    assert Image.MAX_IMAGE_PIXELS is not None
    side = int((Image.MAX_IMAGE_PIXELS * times) ** 0.5)
    (tmp_path / "bomb.png").write_bytes(png(side, side, depth, 2, []))
    with pytest.raises(
        ImageFileError, match=r"bomb\.png: has more than \d+ pixels, as decompression bombs do"
    ) as caught:
        read_image(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)


def test_limit_of_pixels_is_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", random_array((20, 20, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(ImageFileError, match="more than 399 pixels"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert read_image(path).rgb.shape == (1, 3, 20, 20)


def test_kinds_of_pixels_that_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.zeros((4, 4), np.int32)).save(tmp_path / "int.tif")
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tif")
    for name, message in {
        "float.tif": "its values are not 8 or 16 bits, unsigned; convert it",
        "int.tif": "its values are not 8 or 16 bits, unsigned; convert it",
        "lab.tif": "its pixels are LAB, which is not supported; convert it to RGB",
    }.items():
        with pytest.raises(ImageFileError, match=f"{name}: {message}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.xyz", (4, 4), r"a\.xyz: not a kind we write; end its name in \.png, \.jpg"),
        ("a", (4, 4), "a: not a kind we write"),
        ("no/a.png", (4, 4), "a.png: there is no folder .*no; create it first"),
        ("a.webp", (4, 16384), "a.webp: 16384x4 is too large for WEBP, at most 16383; write PNG or TIFF"),
        ("a.jpg", (70000, 1), "a.jpg: 1x70000 is too large for JPEG"),
        (".", (4, 4), "not a kind we write"),
        ("folder.png", (4, 4), "folder.png: is a folder; name a file"),
    ],
)
def test_bad_output_is_known_before_the_work(tmp_path: Path, name: str, size: tuple[int, int], message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageFileError, match=message):
        check_output(tmp_path / name, *size, has_alpha=False)
    with pytest.raises(ImageFileError, match=message):
        write_image(tmp_path / name, DecodedImage(torch.zeros(1, 3, *size)))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_bad_arguments(tmp_path: Path) -> None:
    good = decoded(random_array((4, 5, 4)))
    nan = torch.full((1, 3, 4, 5), torch.nan)
    cases: list[tuple[DecodedImage, dict[str, Any], str]] = [
        (DecodedImage(torch.zeros(3, 4, 5)), {}, r"image.rgb must be \(1,3,h,w\), not \(3, 4, 5\)"),
        (DecodedImage(good.rgb, torch.zeros(1, 1, 4, 4)), {}, r"image.alpha must be \(1,1,4,5\)"),
        (DecodedImage(nan), {}, "image holds NaN"),
        (good, {"quality": 0}, "quality must be in 1..100, not 0"),
        (good, {"bit_depth": 12}, "bit_depth must be 8 or 16, not 12"),
    ]
    for image, options, message in cases:
        with pytest.raises(ValueError, match=message):
            write_image(tmp_path / "a.png", image, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_image_the_format_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    image = decoded(random_array((4, 5, 3)), exif=b"Exif\0\0II*\0\x08\0")
    with pytest.raises(
        ImageFileError, match=r"a\.jpg: JPEG cannot hold this image \(unpack_from requires .*\); write another"
    ):
        write_image(tmp_path / "a.jpg", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_when_space_runs_out_the_old_file_stays_and_nothing_else(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.png"
    write_image(path, decoded(random_array((4, 5, 3))))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(
            ImageFileError, match=r"a\.png: cannot be written \(.*\); free some space or write elsewhere"
        ):
            write_image(path, decoded(random_array((200, 200, 3))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    secret = save(tmp_path / "secret.png", random_array((4, 5, 3)))
    image = read_image(secret)
    root = os.geteuid() == 0
    secret.chmod(0)
    folder.chmod(0o500)
    try:
        if root:  # who may do anything
            os.seteuid(65534)
        with pytest.raises(ImageFileError, match=r"a\.png: cannot be written \(Permission denied\); name a file in a"):
            write_image(folder / "a.png", image)
        with pytest.raises(ImageFileError, match=r"secret\.png: cannot be read \(Permission denied\); check its perm"):
            read_image(secret)
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_new_files_have_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_image(tmp_path / "a.png", decoded(random_array((4, 5, 3))))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode
