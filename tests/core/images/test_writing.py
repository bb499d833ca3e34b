from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from tests.core.images.pictures import decoded, levels_of, random_array
from upsr_core.images.files import DecodedImage, ImageFileError, read_image, write_image
from upsr_core.pixels import quantise


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_round_trip_is_exact(tmp_path: Path, suffix: str, dtype: Any, channels: int) -> None:
    array = random_array((9, 14, channels), dtype)
    path = tmp_path / f"a{suffix}"
    write_image(path, decoded(array))
    image = read_image(path)
    assert image.bit_depth == 8 * array.itemsize
    np.testing.assert_array_equal(levels_of(image)[..., [0, -1]], array[..., [0, -1]])
    if (dtype, channels) != (np.uint16, 2):  # written as RGB with alpha
        assert image.grayscale == (channels <= 2)
        np.testing.assert_array_equal(levels_of(image), array)


@pytest.mark.parametrize("depth", [8, 16])
def test_every_level_survives(tmp_path: Path, depth: int) -> None:
    dtype = np.uint8 if depth == 8 else np.uint16
    array = np.arange(2**depth, dtype=dtype).reshape(2 ** (depth // 2), -1, 1)
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, decoded(array))
        np.testing.assert_array_equal(levels_of(read_image(tmp_path / name)), array)


def test_large_tiff_of_several_strips_is_read_by_others(tmp_path: Path) -> None:
    array = random_array((800, 700, 3), np.uint16)
    write_image(tmp_path / "a.tif", decoded(array))
    with TiffImagePlugin.TiffImageFile(tmp_path / "a.tif") as file:
        assert len(file.tag_v2[273]) > 2
    by_opencv: Any = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_opencv[..., ::-1], array)
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "a.tif")), array >> 8, atol=1)


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 1), (".jpg", 3), (".webp", 3), (".webp", 4)])
def test_lossy_formats_are_near(tmp_path: Path, suffix: str, channels: int) -> None:
    array = cv2.resize(random_array((4, 5, channels)), (60, 40), interpolation=cv2.INTER_LINEAR).reshape(
        40, 60, channels
    )
    path = tmp_path / f"a{suffix}"
    write_image(path, decoded(array))
    image = read_image(path)
    assert image.grayscale == (channels == 1)
    assert np.abs(levels_of(image) - array.astype(int)).mean() < 4
    write_image(tmp_path / f"b{suffix}", decoded(array), quality=20)
    assert (tmp_path / f"b{suffix}").stat().st_size < path.stat().st_size


def test_values_are_rounded_half_up_and_clipped() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4999, 0.5, 1.5, 2.4999, 254.5, 255.0, 300.0], dtype=torch.float64) / 255
    assert quantise(values, 255).tolist() == [0, 0, 0, 1, 2, 2, 255, 255, 255]
    assert quantise(torch.tensor([0.5], dtype=torch.float64), 65535).tolist() == [32768]


def test_bit_depth_can_be_chosen(tmp_path: Path) -> None:
    array = random_array((9, 14, 3))
    write_image(tmp_path / "a.png", decoded(array), bit_depth=16)
    image = read_image(tmp_path / "a.png")
    assert image.bit_depth == 16
    np.testing.assert_array_equal(levels_of(image), array.astype(int) * 257)
    write_image(tmp_path / "a.png", image, bit_depth=8)
    np.testing.assert_array_equal(levels_of(read_image(tmp_path / "a.png")), array)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_loss_of_16_bits_is_said(tmp_path: Path, suffix: str) -> None:
    image = decoded(random_array((9, 14, 3), np.uint16))
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
    array = random_array((16, 16, 4))
    array[..., :3], array[:8, :, 3], array[8:, :, 3] = 200, 0, 255
    image = decoded(array)
    with pytest.raises(ImageFileError, match=r"a\.jpg: JPEG has no transparency; write PNG, WebP or TIFF, or give"):
        write_image(tmp_path / "a.jpg", image)
    assert list(tmp_path.iterdir()) == []
    write_image(tmp_path / "a.jpg", image, background=(1, 0, 0))
    rgb = read_image(tmp_path / "a.jpg").rgb[0] * 255
    assert rgb[:, 2, 8].tolist() == pytest.approx([255, 0, 0], abs=4)
    assert rgb[:, 13, 8].tolist() == pytest.approx([200, 200, 200], abs=4)


def test_coloured_background_makes_a_gray_image_coloured(tmp_path: Path) -> None:
    image = decoded(np.full((4, 4, 2), 0, np.uint8))
    write_image(tmp_path / "a.png", image, background=(0, 0, 1))
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (0, 0, 255)
    write_image(tmp_path / "a.png", image, background=(1, 1, 1))
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == 255
