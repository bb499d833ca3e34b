from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.images import photo
from upsr_core.degradation.config import RESIZE_MODES
from upsr_core.degradation.ragged import RaggedImages
from upsr_core.degradation.resampling import Resampling, resize

OPENCV = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
SIZES = [(40, 52), (17, 23), (95, 61), (1, 1), (120, 20)]


def resized(image: torch.Tensor, size: tuple[int, int], mode: str, antialias: bool = False) -> torch.Tensor:
    return resize(RaggedImages.whole(image), [Resampling(size, mode, antialias)] * len(image)).pixels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_agrees_with_pytorch(mode: str, size: tuple[int, int]) -> None:
    image = photo(0, 48, 60)[None]
    options = {} if mode == "area" else {"align_corners": False}
    expected = F.interpolate(image, size, mode=mode, **options)
    assert torch.allclose(resized(image, size, mode), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased_agrees_with_pytorch(mode: str, size: tuple[int, int]) -> None:
    image = photo(1, 48, 60)[None]
    expected = F.interpolate(image, size, mode=mode, align_corners=False, antialias=True)
    assert torch.allclose(resized(image, size, mode, antialias=True), expected, atol=1e-5)


# Not antialiased, OpenCV's bilinear and bicubic are ours for every size. Its area method weighs partly covered pixels
# by their share, where PyTorch's counts them in full, and enlarges differently: they agree for whole factors.
@pytest.mark.parametrize(
    ("mode", "size"),
    [("area", (24, 30)), ("area", (16, 12))] + [(mode, size) for mode in ("bilinear", "bicubic") for size in SIZES],
)
def test_agrees_with_opencv(mode: str, size: tuple[int, int]) -> None:
    image = photo(2, 48, 60)
    theirs = cv2.resize(image.permute(1, 2, 0).numpy(), size[::-1], interpolation=OPENCV[mode])
    ours = resized(image[None], size, mode)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-4


def test_area_is_near_opencvs_for_other_factors() -> None:
    image = photo(2, 96)
    theirs = cv2.resize(image.permute(1, 2, 0).numpy(), (37, 37), interpolation=cv2.INTER_AREA)
    ours = resized(image[None], (37, 37), "area")[0].permute(1, 2, 0).numpy()
    assert 1e-3 < np.abs(ours - theirs).mean() < 0.02


def test_antialiasing_is_what_shrinks_without_aliases() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    for mode in ("bilinear", "bicubic"):
        assert (resized(stripes, (16, 20), mode, antialias=True) - 0.5).abs()[..., 2:-2].max() < 0.12
        assert (resized(stripes, (16, 20), mode) - 0.5).abs()[..., 2:-2].max() > 0.3
    assert (resized(stripes, (16, 16), "area") - 0.5).abs().max() == 0


def test_each_image_has_its_own_size_and_method() -> None:
    images = [photo(i, height, width)[None] for i, (height, width) in enumerate([(40, 40), (33, 50), (61, 20), (8, 9)])]
    ways = [Resampling((70, 22), "bicubic"), Resampling((12, 13), "area"), None, Resampling((5, 30), "bilinear", True)]
    together = resize(RaggedImages.packed(images), ways)
    assert together.sizes == ((70, 22), (12, 13), (61, 20), (5, 30))
    assert torch.equal(together.image(2), images[2])
    for i in (0, 1, 3):
        way = ways[i]
        assert way is not None
        alone = resized(images[i], way.size, way.mode, way.antialias)
        assert torch.allclose(together.image(i), alone, atol=1e-6)
    assert together.pixels.isfinite().all()


def test_the_same_size_changes_nothing() -> None:
    images = RaggedImages.packed([photo(0, 20)[None], photo(1, 30)[None]])
    same = [Resampling((20, 20), "bicubic"), Resampling((30, 30), "area")]
    assert resize(images, same) is images
    for mode in RESIZE_MODES:
        for antialias in (False, True):
            one_kept = resize(images, [Resampling((20, 20), mode, antialias), Resampling((15, 15), "area")])
            assert torch.equal(one_kept.image(0), images.image(0))
