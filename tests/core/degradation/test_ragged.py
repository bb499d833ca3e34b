from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from upsr_core.degradation.ragged import RaggedImages

SIZES = [(9, 13), (12, 7), (5, 5)]


@pytest.fixture
def singles() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, height, width, generator=generator) for height, width in SIZES]


def test_images_are_packed_into_the_smallest_canvas(singles: list[torch.Tensor]) -> None:
    images = RaggedImages.packed(singles)
    assert images.pixels.shape == (3, 3, 12, 13)
    assert images.sizes == tuple(SIZES)
    assert all(torch.equal(images.image(i), single) for i, single in enumerate(singles))
    whole = RaggedImages.whole(singles[0])
    assert whole.sizes == ((9, 13),)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_each_image_is_continued_beyond_its_own_borders(singles: list[torch.Tensor], mode) -> None:
    images = RaggedImages.packed(singles)
    extended = images.extended(4, (20, 21), mode)
    assert extended.shape == (3, 3, 20, 21)
    for i, (height, width) in enumerate(SIZES):
        expected = F.pad(singles[i], (4, 4, 4, 4), mode=mode)
        assert torch.equal(extended[i : i + 1, :, : height + 8, : width + 8], expected)


def test_images_of_one_size_are_continued_alike(singles: list[torch.Tensor]) -> None:
    alone = RaggedImages(RaggedImages.packed(singles).pixels[:1], ((9, 13),))
    pair = RaggedImages.packed([singles[0], singles[1]])
    for mode in ("reflect", "replicate"):
        assert torch.equal(alone.extended(3, (15, 19), mode), pair.extended(3, (15, 19), mode)[:1])


def test_map_sees_single_images_and_may_resize_them(singles: list[torch.Tensor]) -> None:
    images = RaggedImages.packed(singles).map(lambda index, image: image[..., index:] + index)
    assert images.sizes == ((9, 13), (12, 6), (5, 3))
    assert torch.equal(images.image(2), singles[2][..., 2:] + 2)
