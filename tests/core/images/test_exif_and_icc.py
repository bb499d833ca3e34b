from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.core.images.pictures import GRAY_PROFILE, SRGB, decoded, levels_of, random_array, save
from upsr_core.images.files import DecodedImage, read_image, write_image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.png", "a.webp", "a.tif", "a.jpg", "16.png", "16.tif"])
def test_exif_orientation_is_applied_and_reset(tmp_path: Path, orientation: int, kind: str) -> None:
    array = random_array((7, 12, 3))
    upright = ImageOps.exif_transpose(_with_orientation(array, orientation))
    path = tmp_path / kind
    if kind.startswith("16"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010F] = "maker"
        write_image(path, decoded(array.astype(np.uint16) * 257, exif=exif.tobytes()))
    else:
        quality: dict[str, Any] = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "maker"
        Image.fromarray(array).save(path, exif=exif, **quality.get(kind, {}))
    image = read_image(path)
    expected = np.asarray(upright).astype(int) * (257 if kind.startswith("16") else 1)
    assert image.rgb.shape[2:] == expected.shape[:2]
    assert np.abs(levels_of(image) - expected).max() <= (8 if kind == "a.jpg" else 0)
    kept = _tags(image)
    assert kept[0x0112] == 1
    assert kept[0x010F] == "maker"


def _tags(image: DecodedImage) -> Image.Exif:
    assert image.exif is not None
    exif = Image.Exif()
    exif.load(image.exif)
    return exif


def _with_orientation(array: np.ndarray, orientation: int) -> Image.Image:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(buffer, "PNG", exif=exif)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_unknown_orientation_leaves_the_image_as_it_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 11
    array = random_array((7, 12, 3))
    image = read_image(save(tmp_path / "a.png", array, exif=exif))
    np.testing.assert_array_equal(levels_of(image), array)


def _photo_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x8298] = "maker", "model", "© Jörg".encode()
    exif[0x8769] = {0x829A: 0.004, 0x8827: 400, 0xA002: 12, 0xA003: 7}
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.5)}
    return exif


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
def test_exif_and_icc_survive_and_the_size_in_exif_is_that_of_the_new_image(
    tmp_path: Path, suffix: str, depth: int
) -> None:
    if depth == 16 and suffix in (".jpg", ".webp"):
        pytest.skip("the format has 8 bits")
    dtype = np.uint8 if depth == 8 else np.uint16
    small = decoded(random_array((7, 12, 3), dtype), exif=_photo_exif().tobytes(), icc_profile=SRGB)
    large = DecodedImage(small.rgb.repeat(1, 1, 4, 4), None, depth, False, small.exif, small.icc_profile)
    write_image(tmp_path / f"a{suffix}", large)
    image = read_image(tmp_path / f"a{suffix}")
    assert image.icc_profile == SRGB
    exif = _tags(image)
    assert (exif[0x010F], exif[0x0110]) == ("maker", "model")
    assert exif[0x8298].encode("latin-1").decode() == "© Jörg"  # Pillow reads all text as Latin-1
    details, position = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert (float(details[0x829A]), details[0x8827]) == (0.004, 400)
    assert (details[0xA002], details[0xA003]) == (48, 28)
    assert position[1] == "N"
    assert [float(part) for part in position[2]] == [52, 31, 12.5]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_travels_byte_for_byte_with_makers_notes_and_without_the_thumbnail(tmp_path: Path, suffix: str) -> None:
    exif = _photo_exif()
    exif[0x0112] = 1
    exif[0x8769][0x927C] = b"maker's note" * 9
    block = exif.tobytes()
    # A thumbnail follows where the first directory says that the next one is.
    (count,) = struct.unpack_from(">H", block, 14)
    link = 16 + 12 * count
    with_thumbnail = block[:link] + struct.pack(">I", len(block) - 6) + block[link + 4 :] + struct.pack(">HI", 0, 0)
    image = decoded(random_array((7, 12, 3)), exif=with_thumbnail)
    write_image(tmp_path / f"a{suffix}", image)
    kept = read_image(tmp_path / f"a{suffix}").exif
    assert kept is not None
    if suffix != ".tif":  # whose tags are those of the image, too
        assert kept == with_thumbnail.replace(struct.pack(">I", len(block) - 6), bytes(4), 1)
    read = Image.Exif()
    read.load(kept)
    assert read.get_ifd(0x8769)[0x927C] == b"maker's note" * 9
    assert read.get_ifd(ExifTags.IFD.IFD1) == {}


def test_tiff_layout_does_not_travel_into_other_files(tmp_path: Path) -> None:
    write_image(tmp_path / "a.tif", decoded(random_array((7, 12, 3)), exif=_photo_exif().tobytes()))
    image = read_image(tmp_path / "a.tif")
    write_image(tmp_path / "a.png", image)
    tags = set(Image.open(tmp_path / "a.png").getexif())
    assert tags == {0x010F, 0x0110, 0x8298, 0x8769, 0x8825, 0x0112}


def test_no_exif_stays_no_exif(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp"):
        assert read_image(save(tmp_path / name, random_array((7, 12, 3)))).exif is None


def test_damaged_exif_is_left_out_with_a_warning(tmp_path: Path) -> None:
    array = random_array((7, 12, 3))
    save(tmp_path / "a.png", array, exif=b"Exif\0\0II*\0\x08\0")
    with pytest.warns(UserWarning, match=r"a\.png: its EXIF data were left out, they are damaged"):
        image = read_image(tmp_path / "a.png")
    assert image.exif is None
    np.testing.assert_array_equal(levels_of(image), array)


def test_exif_that_is_no_tiff_is_left_out_with_a_warning(tmp_path: Path) -> None:
    array = random_array((7, 12, 3))
    save(tmp_path / "a.png", array, exif=b"Exif\0\0II\0\0\x08\0\0\0" + bytes(6))
    with pytest.warns(UserWarning, match=r"a\.png: its EXIF data were left out, they are damaged"):
        image = read_image(tmp_path / "a.png")
    assert image.exif is None


@pytest.mark.parametrize(("tag", "entry"), [(271, (11, 1, 0x3F800000)), (0x8769, (4, 1, 2**31))])
def test_a_tiff_with_odd_tags_is_read(tmp_path: Path, tag: int, entry: tuple[int, int, int]) -> None:
    """A maker that is a number, and details that lie beyond the file."""
    array = random_array((7, 12, 3))
    save(tmp_path / "a.tif", array, tiffinfo={271: "maker", 0x8769: {0x9003: "2026:01:01 00:00:00"}})
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index(struct.pack("<HH", tag, 2 if tag == 271 else 4))
    struct.pack_into("<HII", data, at + 2, *entry)
    (tmp_path / "a.tif").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(levels_of(read_image(tmp_path / "a.tif")), array)


def test_gray_profile_is_left_out_where_gray_with_alpha_becomes_rgb(tmp_path: Path) -> None:
    gray = decoded(random_array((7, 12, 2), np.uint16), icc_profile=GRAY_PROFILE)
    with pytest.warns(UserWarning, match=r"a\.png: its profile for gray does not fit RGB pixels"):
        write_image(tmp_path / "a.png", gray)
    assert read_image(tmp_path / "a.png").icc_profile is None


def test_gray_profile_is_kept_for_gray_and_left_out_of_rgb(tmp_path: Path) -> None:
    gray = decoded(random_array((7, 12, 1)), icc_profile=GRAY_PROFILE)
    write_image(tmp_path / "a.png", gray)
    assert read_image(tmp_path / "a.png").icc_profile == GRAY_PROFILE
    with pytest.warns(UserWarning, match=r"a\.webp: its profile for gray does not fit RGB pixels"):
        write_image(tmp_path / "a.webp", gray)
    assert read_image(tmp_path / "a.webp").icc_profile is None
