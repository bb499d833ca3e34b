from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import picture


def test_strip_shows_the_panels_side_by_side(model_folder: Path, photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    picture.main([str(photo_folder / "a.png"), str(out), "--model", str(model_folder), "--original"])
    strip = np.asarray(Image.open(out))
    height, width = 96, 128
    step = width + picture.GAP
    assert strip.shape[1] == 6 * step - picture.GAP
    lr = strip[:height, :width]
    np.testing.assert_array_equal(lr, lr[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))
    original = np.asarray(Image.open(photo_folder / "a.png"))[:height, :width]
    np.testing.assert_array_equal(strip[:height, 5 * step :], original)
    for column in range(6):  # a label under each
        assert strip[height:, column * step : column * step + width].min() < 100


def test_strip_of_a_part_of_an_lr_photo(model_folder: Path, photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    arguments = [str(photo_folder / "a.png"), str(out), "--model", str(model_folder), "--is-lr"]
    picture.main([*arguments, "--crop", "5", "6", "23", "17"])
    strip = np.asarray(Image.open(out))
    part = np.asarray(Image.open(photo_folder / "a.png"))[6:23, 5:28]
    np.testing.assert_array_equal(strip[: 4 * 17, : 4 * 23][::4, ::4], part)
    with pytest.raises(ValueError, match=r"a\.png: --crop 100 6 40 17 is not inside of 130x98; give X Y W H"):
        picture.main([*arguments, "--crop", "100", "6", "40", "17"])
