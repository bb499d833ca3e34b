from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.core.images.pictures import SRGB, chunk, decoded, levels_of, png, png_16, random_array, save
from upsr_core.images.files import ImageFileError, read_image, write_image


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
    path = save(tmp_path / f"a{suffix}", random_array((9, 14, 3)))
    image = read_image(path)
    assert (image.format, image.bit_depth, image.alpha) == (file_format, 8, None)
    assert image.rgb.dtype == torch.float32
    assert image.rgb.is_contiguous()
    np.testing.assert_array_equal(levels_of(image), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_gray_file_is_gray_with_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(tmp_path / f"a{suffix}", random_array((9, 14))))
    assert image.grayscale
    assert image.rgb.shape == (1, 3, 9, 14)
    assert torch.equal(image.rgb[:, 0], image.rgb[:, 1])
    assert torch.equal(image.rgb[:, 0], image.rgb[:, 2])


def test_black_and_white_file_is_gray_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(random_array((9, 14)) > 127).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.grayscale
    assert image.rgb.unique().tolist() == [0, 1]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(random_array((9, 14, 3))).quantize(16)
    palette.save(tmp_path / "opaque.png")
    palette.save(tmp_path / "index.png", transparency=3)
    palette.save(tmp_path / "index.gif", transparency=3)
    palette.save(tmp_path / "table.png", transparency=bytes(range(0, 160, 10)))
    for name in ("opaque.png", "index.png", "index.gif", "table.png"):
        image = read_image(tmp_path / name)
        mode = "RGB" if name == "opaque.png" else "RGBA"
        assert not image.grayscale
        np.testing.assert_array_equal(levels_of(image), np.asarray(Image.open(tmp_path / name).convert(mode)))
    alpha = read_image(tmp_path / "index.png").alpha
    assert alpha is not None
    assert alpha.unique().tolist() == [0, 1]


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_kept_apart(tmp_path: Path, channels: int, suffix: str) -> None:
    array = random_array((9, 14, channels))
    image = read_image(save(tmp_path / f"a{suffix}", array))
    assert image.grayscale == (channels == 2)
    np.testing.assert_array_equal(levels_of(image), array)


def test_transparent_colour_of_gray_and_rgb(tmp_path: Path) -> None:
    gray, rgb = random_array((9, 14)), random_array((9, 14, 3))
    image = read_image(save(tmp_path / "gray.png", gray, transparency=int(gray[2, 3])))
    assert image.grayscale
    np.testing.assert_array_equal(levels_of(image)[..., 1], np.where(gray == gray[2, 3], 0, 255))
    image = read_image(save(tmp_path / "rgb.png", rgb, transparency=tuple(rgb[2, 3].tolist())))
    np.testing.assert_array_equal(levels_of(image)[..., 3], np.where((rgb == rgb[2, 3]).all(-1), 0, 255))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_transparent_level_of_gray_below_8_bits(tmp_path: Path, depth: int) -> None:
    values = random_array((6, 8)) >> (8 - depth)
    bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., -depth:].reshape(6, -1)
    rows = [np.packbits(row).tobytes() for row in bits]
    data = png(8, 6, depth, 0, rows, (chunk(b"tRNS", struct.pack(">H", 1)),))
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    expected = np.stack([values * (255 // (2**depth - 1)), np.where(values == 1, 0, 255)], axis=2)
    np.testing.assert_array_equal(levels_of(image), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_reads_all_16_bits_of_png(tmp_path: Path, channels: int) -> None:
    array = random_array((9, 14, channels), np.uint16)
    (tmp_path / "a.png").write_bytes(png_16(array))
    image = read_image(tmp_path / "a.png")
    assert (image.bit_depth, image.grayscale) == (16, channels <= 2)
    np.testing.assert_array_equal(levels_of(image), array)


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_16_bit_png_is_compared_in_16_bits(tmp_path: Path, channels: int) -> None:
    array = random_array((9, 14, channels), np.uint16)
    array[0, 0] = array[2, 3] ^ 1
    key = chunk(b"tRNS", array[2, 3].astype(">u2").tobytes())
    (tmp_path / "a.png").write_bytes(png_16(array, (key,)))
    expected = np.full((9, 14), 65535)
    expected[2, 3] = 0
    levels = levels_of(read_image(tmp_path / "a.png"))
    np.testing.assert_array_equal(levels[..., :channels], array)
    np.testing.assert_array_equal(levels[..., -1], expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_reads_all_16_bits_of_tiff(tmp_path: Path, channels: int) -> None:
    array = random_array((9, 14, channels), np.uint16)
    order = [0] if channels == 1 else [2, 1, 0, 3][:channels]
    assert cv2.imwrite(str(tmp_path / "a.tif"), array[..., order])
    image = read_image(tmp_path / "a.tif")
    assert (image.bit_depth, image.format) == (16, "TIFF")
    np.testing.assert_array_equal(levels_of(image), array)


def test_a_fourth_channel_that_is_no_transparency(tmp_path: Path) -> None:
    array = random_array((9, 14, 4), np.uint16)
    write_image(tmp_path / "a.tif", decoded(array))
    data = (tmp_path / "a.tif").read_bytes()
    straight, unspecified = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 0))
    assert data.count(straight) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(straight, unspecified))
    with pytest.warns(UserWarning, match=r"a\.tif: has a fourth channel that is no transparency"):
        image = read_image(tmp_path / "a.tif")
    assert image.alpha is None
    np.testing.assert_array_equal(levels_of(image), array[..., :3])


def test_16_bit_planes_are_refused(tmp_path: Path) -> None:
    """OpenCV takes the first plane for the whole image."""
    planes = [random_array((4, 6), np.uint16).tobytes() for _ in range(3)]
    start, size = 8 + sum(map(len, planes)), len(planes[0])
    lists = struct.pack("<3H3I3I", 16, 16, 16, *(8 + i * size for i in range(3)), *[size] * 3)
    entries = [
        *((256, 4, 1, 6), (257, 4, 1, 4), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, start + 6)),
        *((277, 3, 1, 3), (278, 4, 1, 4), (279, 4, 3, start + 18), (284, 3, 1, 2)),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    header = b"II*\0" + struct.pack("<I", start + len(lists))
    (tmp_path / "a.tif").write_bytes(header + b"".join(planes) + lists + directory)
    with pytest.raises(ImageFileError, match=r"a\.tif: is a 16-bit TIFF with a plane for each channel; save it"):
        read_image(tmp_path / "a.tif")


def test_pillow_16_bit_gray_tiff(tmp_path: Path) -> None:
    array = random_array((9, 14), np.uint16)
    image = read_image(save(tmp_path / "a.tif", array))
    np.testing.assert_array_equal(levels_of(image)[..., 0], array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_multiplied_by_alpha_are_divided_again(tmp_path: Path, dtype: Any) -> None:
    maximum = np.iinfo(dtype).max
    straight = random_array((9, 14, 4), dtype) // 4 * 4
    alpha = np.full((9, 14, 1), maximum // 3 * 2, dtype)
    alpha[0] = 0
    colours = (straight[..., :3].astype(float) * alpha / maximum + 0.5).astype(dtype)
    write_image(tmp_path / "a.tif", decoded(np.concatenate([colours, alpha], axis=2)))
    data = (tmp_path / "a.tif").read_bytes()
    says_straight, says_multiplied = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))
    assert data.count(says_straight) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(says_straight, says_multiplied))
    levels = levels_of(read_image(tmp_path / "a.tif"))
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
