from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin

from upsr_core.images.files import DecodedImage, ImageFileError, check_output, read_image, write_image
from upsr_core.pixels import quantise

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Only the colour space, bytes 16 to 20, is looked at.
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def _random(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def _save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(
    width: int, height: int, depth: int, colour_type: int, rows: list[bytes], chunks: tuple[bytes, ...] = ()
) -> bytes:
    """A PNG by its specification, for the kinds that Pillow and OpenCV don't write."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + _chunk(b"IEND", b"")


def _png_16(array: np.ndarray, chunks: tuple[bytes, ...] = ()) -> bytes:
    height, width, channels = array.shape
    rows = [row.astype(">u2").tobytes() for row in array]
    return _png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows, chunks)


def _levels(image: DecodedImage) -> np.ndarray:
    """(h,w,c) whole numbers as the file holds them."""
    colours = image.rgb[:, :1] if image.grayscale else image.rgb
    pixels = colours if image.alpha is None else torch.cat([colours, image.alpha], 1)
    levels = pixels * (2**image.bit_depth - 1)
    assert (levels - levels.round()).abs().max() < 0.01
    return levels.round().int()[0].permute(1, 2, 0).numpy()


def _decoded(array: np.ndarray, **fields: Any) -> DecodedImage:
    """The image (h,w,c) of uint8 or uint16 as `read_image` would give it."""
    pixels = torch.from_numpy(array.astype(np.float32) / np.iinfo(array.dtype).max).permute(2, 0, 1)[None]
    gray, has_alpha = array.shape[2] <= 2, array.shape[2] in (2, 4)
    return DecodedImage(
        rgb=pixels[:, : 1 if gray else 3].repeat(1, 3 if gray else 1, 1, 1),
        alpha=pixels[:, -1:] if has_alpha else None,
        bit_depth=8 * array.itemsize,
        grayscale=gray,
        **fields,
    )


# Reading


@pytest.mark.parametrize(
    ("suffix", "file_format"),
    [
        (".png", "PNG"),
        (".jpg", "JPEG"),
        (".webp", "WEBP"),
        (".tif", "TIFF"),
        (".bmp", "BMP"),
        (".gif", "GIF"),
    ],
)
def test_reads_every_format_as_pillow_does(tmp_path: Path, suffix: str, file_format: str) -> None:
    path = _save(tmp_path / f"a{suffix}", _random((9, 14, 3)))
    image = read_image(path)
    assert (image.format, image.bit_depth, image.alpha) == (file_format, 8, None)
    assert image.rgb.dtype == torch.float32
    assert image.rgb.is_contiguous()
    np.testing.assert_array_equal(_levels(image), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_gray_file_is_gray_with_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    image = read_image(_save(tmp_path / f"a{suffix}", _random((9, 14))))
    assert image.grayscale
    assert image.rgb.shape == (1, 3, 9, 14)
    assert torch.equal(image.rgb[:, 0], image.rgb[:, 1])
    assert torch.equal(image.rgb[:, 0], image.rgb[:, 2])


def test_black_and_white_file_is_gray_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(_random((9, 14)) > 127).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.grayscale
    assert image.rgb.unique().tolist() == [0, 1]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(_random((9, 14, 3))).quantize(16)
    palette.save(tmp_path / "opaque.png")
    palette.save(tmp_path / "index.png", transparency=3)
    palette.save(tmp_path / "index.gif", transparency=3)
    palette.save(tmp_path / "table.png", transparency=bytes(range(0, 160, 10)))
    for name in ("opaque.png", "index.png", "index.gif", "table.png"):
        image = read_image(tmp_path / name)
        mode = "RGB" if name == "opaque.png" else "RGBA"
        assert not image.grayscale
        np.testing.assert_array_equal(_levels(image), np.asarray(Image.open(tmp_path / name).convert(mode)))
    alpha = read_image(tmp_path / "index.png").alpha
    assert alpha is not None
    assert alpha.unique().tolist() == [0, 1]


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_kept_apart(tmp_path: Path, channels: int, suffix: str) -> None:
    array = _random((9, 14, channels))
    image = read_image(_save(tmp_path / f"a{suffix}", array))
    assert image.grayscale == (channels == 2)
    np.testing.assert_array_equal(_levels(image), array)


def test_transparent_colour_of_gray_and_rgb(tmp_path: Path) -> None:
    gray, rgb = _random((9, 14)), _random((9, 14, 3))
    image = read_image(_save(tmp_path / "gray.png", gray, transparency=int(gray[2, 3])))
    assert image.grayscale
    np.testing.assert_array_equal(_levels(image)[..., 1], np.where(gray == gray[2, 3], 0, 255))
    image = read_image(_save(tmp_path / "rgb.png", rgb, transparency=tuple(rgb[2, 3].tolist())))
    np.testing.assert_array_equal(_levels(image)[..., 3], np.where((rgb == rgb[2, 3]).all(-1), 0, 255))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_transparent_level_of_gray_below_8_bits(tmp_path: Path, depth: int) -> None:
    values = _random((6, 8)) >> (8 - depth)
    bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., -depth:].reshape(6, -1)
    rows = [np.packbits(row).tobytes() for row in bits]
    data = _png(8, 6, depth, 0, rows, (_chunk(b"tRNS", struct.pack(">H", 1)),))
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    expected = np.stack([values * (255 // (2**depth - 1)), np.where(values == 1, 0, 255)], axis=2)
    np.testing.assert_array_equal(_levels(image), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_reads_all_16_bits_of_png(tmp_path: Path, channels: int) -> None:
    array = _random((9, 14, channels), np.uint16)
    (tmp_path / "a.png").write_bytes(_png_16(array))
    image = read_image(tmp_path / "a.png")
    assert (image.bit_depth, image.grayscale) == (16, channels <= 2)
    np.testing.assert_array_equal(_levels(image), array)


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_16_bit_png_is_compared_in_16_bits(tmp_path: Path, channels: int) -> None:
    array = _random((9, 14, channels), np.uint16)
    array[0, 0] = array[2, 3] ^ 1
    key = _chunk(b"tRNS", array[2, 3].astype(">u2").tobytes())
    (tmp_path / "a.png").write_bytes(_png_16(array, (key,)))
    expected = np.full((9, 14), 65535)
    expected[2, 3] = 0
    levels = _levels(read_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(levels[..., :channels], array)
    np.testing.assert_array_equal(levels[..., -1], expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_reads_all_16_bits_of_tiff(tmp_path: Path, channels: int) -> None:
    array = _random((9, 14, channels), np.uint16)
    order = [0] if channels == 1 else [2, 1, 0, 3][:channels]
    assert cv2.imwrite(str(tmp_path / "a.tif"), array[..., order])
    image = read_image(tmp_path / "a.tif")
    assert (image.bit_depth, image.format) == (16, "TIFF")
    np.testing.assert_array_equal(_levels(image), array)


def test_pillow_16_bit_gray_tiff(tmp_path: Path) -> None:
    array = _random((9, 14), np.uint16)
    image = read_image(_save(tmp_path / "a.tif", array))
    np.testing.assert_array_equal(_levels(image)[..., 0], array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_multiplied_by_alpha_are_divided_again(tmp_path: Path, dtype: Any) -> None:
    maximum = np.iinfo(dtype).max
    straight = _random((9, 14, 4), dtype) // 4 * 4
    alpha = np.full((9, 14, 1), maximum // 3 * 2, dtype)
    alpha[0] = 0
    colours = (straight[..., :3].astype(float) * alpha / maximum + 0.5).astype(dtype)
    write_image(tmp_path / "a.tif", _decoded(np.concatenate([colours, alpha], axis=2)))
    data = (tmp_path / "a.tif").read_bytes()
    says_straight, says_multiplied = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))
    assert data.count(says_straight) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(says_straight, says_multiplied))
    levels = _levels(read_image(tmp_path / "a.tif"))
    np.testing.assert_array_equal(levels[..., 3:], alpha)
    assert np.abs(levels[1:, :, :3] - straight[1:, :, :3].astype(int)).max() <= 2


@pytest.mark.parametrize("icc_profile", [None, SRGB[:16] + b"CMYK" + SRGB[20:]])
def test_cmyk_is_converted_and_says_so(tmp_path: Path, icc_profile: bytes | None) -> None:
    # The second profile names the right colour space but is unusable, which must not stop the reading.
    cmyk = Image.new("CMYK", (8, 6), (0, 255, 255, 0))
    cmyk.save(tmp_path / "a.jpg", icc_profile=icc_profile)
    with pytest.warns(UserWarning, match=r"a\.jpg: is CMYK and was converted to sRGB"):
        image = read_image(tmp_path / "a.jpg")
    assert image.rgb[0, :, 3, 4].tolist() == pytest.approx([1, 0, 0], abs=0.02)
    assert image.icc_profile is None


def test_of_several_frames_the_first_is_read_and_it_says_so(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        with pytest.warns(UserWarning, match=f"{name}: has 3 frames or pages; only the first is read"):
            image = read_image(tmp_path / name)
        assert image.rgb[0, :, 3, 4].tolist() == [1, 0, 0]


def test_phone_photo_with_a_second_picture_is_a_plain_jpeg(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert Image.open(tmp_path / "a.jpg").format == "MPO"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "a.jpg")
    assert image.format == "JPEG"
    assert image.rgb[0, 0].min() > 0.98


# EXIF and ICC


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.png", "a.webp", "a.tif", "a.jpg", "16.png", "16.tif"])
def test_exif_orientation_is_applied_and_reset(tmp_path: Path, orientation: int, kind: str) -> None:
    array = _random((7, 12, 3))
    upright = ImageOps.exif_transpose(_with_orientation(array, orientation))
    path = tmp_path / kind
    if kind.startswith("16"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010F] = "maker"
        write_image(path, _decoded(array.astype(np.uint16) * 257, exif=exif.tobytes()))
    else:
        quality: dict[str, Any] = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "maker"
        Image.fromarray(array).save(path, exif=exif, **quality.get(kind, {}))
    image = read_image(path)
    expected = np.asarray(upright).astype(int) * (257 if kind.startswith("16") else 1)
    assert image.rgb.shape[2:] == expected.shape[:2]
    assert np.abs(_levels(image) - expected).max() <= (8 if kind == "a.jpg" else 0)
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
    array = _random((7, 12, 3))
    image = read_image(_save(tmp_path / "a.png", array, exif=exif))
    np.testing.assert_array_equal(_levels(image), array)


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
    small = _decoded(_random((7, 12, 3), dtype), exif=_photo_exif().tobytes(), icc_profile=SRGB)
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
    image = _decoded(_random((7, 12, 3)), exif=with_thumbnail)
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
    write_image(tmp_path / "a.tif", _decoded(_random((7, 12, 3)), exif=_photo_exif().tobytes()))
    image = read_image(tmp_path / "a.tif")
    write_image(tmp_path / "a.png", image)
    tags = set(Image.open(tmp_path / "a.png").getexif())
    assert tags == {0x010F, 0x0110, 0x8298, 0x8769, 0x8825, 0x0112}


def test_no_exif_stays_no_exif(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp"):
        assert read_image(_save(tmp_path / name, _random((7, 12, 3)))).exif is None


def test_damaged_exif_is_left_out_with_a_warning(tmp_path: Path) -> None:
    array = _random((7, 12, 3))
    _save(tmp_path / "a.png", array, exif=b"Exif\0\0II*\0\x08\0")
    with pytest.warns(UserWarning, match=r"a\.png: its EXIF data were left out, they are damaged"):
        image = read_image(tmp_path / "a.png")
    assert image.exif is None
    np.testing.assert_array_equal(_levels(image), array)


def test_gray_profile_is_kept_for_gray_and_left_out_of_rgb(tmp_path: Path) -> None:
    gray = _decoded(_random((7, 12, 1)), icc_profile=GRAY_PROFILE)
    write_image(tmp_path / "a.png", gray)
    assert read_image(tmp_path / "a.png").icc_profile == GRAY_PROFILE
    with pytest.warns(UserWarning, match=r"a\.webp: its profile for gray does not fit RGB pixels"):
        write_image(tmp_path / "a.webp", gray)
    assert read_image(tmp_path / "a.webp").icc_profile is None


# Writing


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_round_trip_is_exact(tmp_path: Path, suffix: str, dtype: Any, channels: int) -> None:
    array = _random((9, 14, channels), dtype)
    path = tmp_path / f"a{suffix}"
    write_image(path, _decoded(array))
    image = read_image(path)
    assert image.bit_depth == 8 * array.itemsize
    np.testing.assert_array_equal(_levels(image)[..., [0, -1]], array[..., [0, -1]])
    if (dtype, channels) != (np.uint16, 2):  # written as RGB with alpha
        assert image.grayscale == (channels <= 2)
        np.testing.assert_array_equal(_levels(image), array)


@pytest.mark.parametrize("depth", [8, 16])
def test_every_level_survives(tmp_path: Path, depth: int) -> None:
    dtype = np.uint8 if depth == 8 else np.uint16
    array = np.arange(2**depth, dtype=dtype).reshape(2 ** (depth // 2), -1, 1)
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, _decoded(array))
        np.testing.assert_array_equal(_levels(read_image(tmp_path / name)), array)


def test_large_tiff_of_several_strips_is_read_by_others(tmp_path: Path) -> None:
    array = _random((800, 700, 3), np.uint16)
    write_image(tmp_path / "a.tif", _decoded(array))
    with TiffImagePlugin.TiffImageFile(tmp_path / "a.tif") as file:
        assert len(file.tag_v2[273]) > 2
    by_opencv: Any = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_opencv[..., ::-1], array)
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "a.tif")), array >> 8, atol=1)


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 1), (".jpg", 3), (".webp", 3), (".webp", 4)])
def test_lossy_formats_are_near(tmp_path: Path, suffix: str, channels: int) -> None:
    array = cv2.resize(_random((4, 5, channels)), (60, 40), interpolation=cv2.INTER_LINEAR).reshape(40, 60, channels)
    path = tmp_path / f"a{suffix}"
    write_image(path, _decoded(array))
    image = read_image(path)
    assert image.grayscale == (channels == 1)
    assert np.abs(_levels(image) - array.astype(int)).mean() < 4
    write_image(tmp_path / f"b{suffix}", _decoded(array), quality=20)
    assert (tmp_path / f"b{suffix}").stat().st_size < path.stat().st_size


def test_values_are_rounded_half_up_and_clipped() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4999, 0.5, 1.5, 2.4999, 254.5, 255.0, 300.0], dtype=torch.float64) / 255
    assert quantise(values, 255).tolist() == [0, 0, 0, 1, 2, 2, 255, 255, 255]
    assert quantise(torch.tensor([0.5], dtype=torch.float64), 65535).tolist() == [32768]


def test_bit_depth_can_be_chosen(tmp_path: Path) -> None:
    array = _random((9, 14, 3))
    write_image(tmp_path / "a.png", _decoded(array), bit_depth=16)
    image = read_image(tmp_path / "a.png")
    assert image.bit_depth == 16
    np.testing.assert_array_equal(_levels(image), array.astype(int) * 257)
    write_image(tmp_path / "a.png", image, bit_depth=8)
    np.testing.assert_array_equal(_levels(read_image(tmp_path / "a.png")), array)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_loss_of_16_bits_is_said(tmp_path: Path, suffix: str) -> None:
    image = _decoded(_random((9, 14, 3), np.uint16))
    with pytest.warns(UserWarning, match=f"a{suffix}: (JPEG|WEBP) holds 8 of the 16 bits a channel"):
        write_image(tmp_path / f"a{suffix}", image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_image(tmp_path / f"a{suffix}", image, bit_depth=8)


def test_gray_is_written_by_luma_if_the_network_made_it_coloured(tmp_path: Path) -> None:
    rgb = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    write_image(tmp_path / "a.png", DecodedImage(rgb, grayscale=True))
    assert Image.open(tmp_path / "a.png").mode == "L"
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == round(255 * (0.299 + 0.5 * 0.587))


def test_jpeg_refuses_transparency_unless_told_a_background(tmp_path: Path) -> None:
    array = _random((16, 16, 4))
    array[..., :3], array[:8, :, 3], array[8:, :, 3] = 200, 0, 255
    image = _decoded(array)
    with pytest.raises(ImageFileError, match=r"a\.jpg: JPEG has no transparency; write PNG, WebP or TIFF, or give"):
        write_image(tmp_path / "a.jpg", image)
    assert list(tmp_path.iterdir()) == []
    write_image(tmp_path / "a.jpg", image, background=(1, 0, 0))
    rgb = read_image(tmp_path / "a.jpg").rgb[0] * 255
    assert rgb[:, 2, 8].tolist() == pytest.approx([255, 0, 0], abs=4)
    assert rgb[:, 13, 8].tolist() == pytest.approx([200, 200, 200], abs=4)


def test_coloured_background_makes_a_gray_image_coloured(tmp_path: Path) -> None:
    image = _decoded(np.full((4, 4, 2), 0, np.uint8))
    write_image(tmp_path / "a.png", image, background=(0, 0, 1))
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (0, 0, 255)
    write_image(tmp_path / "a.png", image, background=(1, 1, 1))
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == 255


# Bad input


def _noise_file(path: Path, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_random((64, 64, 3))).save(buffer, file_format)
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
    write_image(tmp_path / name, _decoded(_random((64, 64, 3), np.uint16)))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageFileError, match=f"{name}: is damaged"):
        read_image(tmp_path / name)


def test_damage_in_the_middle(tmp_path: Path) -> None:
    for depth in (np.uint8, np.uint16):
        write_image(tmp_path / "a.png", _decoded(_random((64, 64, 3), depth)))
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
    (tmp_path / "bomb.png").write_bytes(_png(side, side, depth, 2, []))
    with pytest.raises(
        ImageFileError, match=r"bomb\.png: has more than \d+ pixels, as decompression bombs do"
    ) as caught:
        read_image(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)


def test_limit_of_pixels_is_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.png", _random((20, 20, 3)))
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
    good = _decoded(_random((4, 5, 4)))
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
    exif = Image.Exif()
    exif[0x010E] = "x" * 70000  # JPEG takes 65533 bytes
    image = _decoded(_random((4, 5, 3)), exif=exif.tobytes())
    with pytest.raises(
        ImageFileError, match=r"a\.jpg: JPEG cannot hold this image \(EXIF data is too long\); write another"
    ):
        write_image(tmp_path / "a.jpg", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_when_space_runs_out_the_old_file_stays_and_nothing_else(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.png"
    write_image(path, _decoded(_random((4, 5, 3))))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(
            ImageFileError, match=r"a\.png: cannot be written \(.*\); free some space or write elsewhere"
        ):
            write_image(path, _decoded(_random((200, 200, 3))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    secret = _save(tmp_path / "secret.png", _random((4, 5, 3)))
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
    write_image(tmp_path / "a.png", _decoded(_random((4, 5, 3))))
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode
