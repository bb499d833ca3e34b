from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.images import photo, photos, to_uint8
from upsr_core.degradation.jpeg import jpeg_round_trip, quantisation_tables
from upsr_core.degradation.ragged import RaggedImages


def coded(image: torch.Tensor, quality: list[int]) -> torch.Tensor:
    return jpeg_round_trip(RaggedImages.whole(image), quality).pixels


def libjpeg_round_trip(image: torch.Tensor, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).astype(float)


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (20, 9), (5, 10), (1, 1)])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95, 100])
def test_jpeg_agrees_with_libjpeg(quality: int, size: tuple[int, int]) -> None:
    """To 0.8 levels of 255 in the mean; what JPEG itself changes is 3 to 19 levels."""
    # The median, since one coefficient that rounds the other way changes a whole small image.
    images = torch.stack([photo(i, 96)[:, 5 : 5 + size[0], 7 : 7 + size[1]] for i in range(12)])
    ours = coded(images, [quality] * 12)
    errors = [np.abs(to_uint8(o) - libjpeg_round_trip(i, quality)).mean() for o, i in zip(ours, images, strict=True)]
    assert np.median(errors) < 0.8


def test_jpeg_tables_are_libjpegs() -> None:
    for quality in (1, 10, 49, 50, 75, 95, 100):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        expected = Image.open(buffer).quantization
        ours = quantisation_tables([quality])[0]
        assert [ours[0].tolist(), ours[1].tolist()] == [list(expected[0]), list(expected[1])]


def test_jpeg_agrees_with_opencv() -> None:
    image = photo(8, 96)
    bgr = to_uint8(image)[..., ::-1]
    decoded = cv2.imdecode(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    ours = to_uint8(coded(image[None], [60])[0])[..., ::-1]
    assert np.abs(ours.astype(float) - decoded).mean() < 1.0


def test_quality_is_per_sample_and_none_leaves_a_sample_alone() -> None:
    image = photos(4) + 1e-3
    together = jpeg_round_trip(RaggedImages.whole(image), [20, 60, None, 95]).pixels
    for i, quality in ((0, 20), (1, 60), (3, 95)):
        assert torch.equal(together[i], coded(image[i : i + 1], [quality])[0])
    assert torch.equal(together[2], image[2])
    errors = [float((coded(image, [q] * 4) - image).pow(2).mean()) for q in (20, 60, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_images_of_different_sizes_are_coded_as_if_alone() -> None:
    images = [photo(i, height, width)[None] for i, (height, width) in enumerate([(64, 48), (37, 90), (5, 3), (81, 17)])]
    quality = [40, 75, 90, 30]
    together = jpeg_round_trip(RaggedImages.packed(images), quality)
    for i, image in enumerate(images):
        assert together.sizes[i] == image.shape[-2:]
        alone = coded(image, quality[i : i + 1])
        assert torch.allclose(together.image(i), alone, atol=1e-5)


def test_bad_input_is_refused() -> None:
    good = RaggedImages.whole(photos(2))
    for images, quality, words in [
        (good, [0, 50], "quality must lie in"),
        (good, [50], "one quality per image"),
        (RaggedImages.whole(good.pixels[:, :1]), [50, 50], "shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            jpeg_round_trip(images, quality)
