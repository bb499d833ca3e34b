from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.images import photo, photos, to_uint8
from upsr_core.degradation.jpeg import jpeg_round_trip, quantisation_tables
from upsr_core.degradation.ragged import RaggedImages


def coded(image: torch.Tensor, quality: list[int], **options) -> torch.Tensor:
    return jpeg_round_trip(RaggedImages.whole(image), quality, **options).pixels


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


@pytest.mark.parametrize("differentiable", [None, "straight_through", "cubic"])
def test_images_of_different_sizes_are_coded_as_if_alone(differentiable) -> None:
    images = [photo(i, height, width)[None] for i, (height, width) in enumerate([(64, 48), (37, 90), (5, 3), (81, 17)])]
    quality = [40, 75, 90, 30]
    together = jpeg_round_trip(RaggedImages.packed(images), quality, differentiable)
    for i, image in enumerate(images):
        assert together.sizes[i] == image.shape[-2:]
        alone = coded(image, quality[i : i + 1], differentiable=differentiable)
        assert torch.allclose(together.image(i), alone, atol=1e-5)


def test_straight_through_gives_the_same_image_and_passes_gradients_on() -> None:
    image = (photos(2) * 0.8 + 0.1).requires_grad_()
    through = coded(image, [50, 90], differentiable="straight_through")
    assert torch.allclose(through, coded(image.detach(), [50, 90]), atol=1e-5)
    # Without rounding the codec keeps the sum of a flat luma change: each pixel's gradient is about 1.
    through.sum().backward()
    assert image.grad is not None
    assert image.grad.mean() == pytest.approx(1, abs=0.05)
    image.grad.zero_()
    coded(image, [50, 90]).sum().backward()
    assert not image.grad.any()


def test_gradient_of_cubic_rounding_is_that_of_its_result() -> None:
    image = (photos(2, 32) * 0.8 + 0.1).requires_grad_()
    weights = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (coded(x, [90, 60], differentiable="cubic") * weights).double().sum()

    loss(image).backward()
    assert image.grad is not None
    predicted = float(image.grad.norm())
    direction, step = image.grad / predicted, 1e-3
    with torch.no_grad():
        measured = float(loss(image + step * direction) - loss(image - step * direction)) / (2 * step)
    assert abs(predicted) > 1
    assert measured == pytest.approx(predicted, rel=0.01)


def test_cubic_rounding_is_near_jpeg() -> None:
    image = photos(3)
    hard, soft = coded(image, [40] * 3), coded(image, [40] * 3, differentiable="cubic")
    assert (soft - hard).abs().mean() < 0.35 * (image - hard).abs().mean()


def test_an_image_can_be_found_by_its_jpeg() -> None:
    target = coded(photos(1, 32), [80])
    guess = torch.full_like(target, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.02)
    losses = []
    for _ in range(40):
        loss = (coded(guess, [80], differentiable="straight_through") - target).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_bad_input_is_refused() -> None:
    good = RaggedImages.whole(photos(2))
    for images, quality, options, words in [
        (good, [0, 50], {}, "quality must lie in"),
        (good, [50], {}, "one quality per image"),
        (RaggedImages.whole(good.pixels[:, :1]), [50, 50], {}, "shape"),
        (good, [50, 50], {"differentiable": "soft"}, "straight_through"),
    ]:
        with pytest.raises(ValueError, match=words):
            jpeg_round_trip(images, quality, **options)
