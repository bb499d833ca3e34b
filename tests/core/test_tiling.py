from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from upsr_core.tiling import even_side, plan_tiles

PLANS = [  # height, width, tile size, overlap
    (1, 1, 8, 2),
    (1, 100, 16, 4),
    (64, 64, 64, 16),
    (65, 64, 64, 16),
    (63, 129, 64, 0),
    (200, 130, 64, 16),
    (113, 49, 64, 16),  # the last two tiles of a column differ by one pixel
    (100, 37, 16, 12),  # overlap above half a tile: up to four tiles in a line share a pixel
    (33, 17, 2, 1),
    (256, 192, 128, 64),
]


@pytest.mark.parametrize(("height", "width", "tile_size", "overlap"), PLANS)
@pytest.mark.parametrize("scale", [1, 4])
def test_weights_sum_to_one_everywhere(height: int, width: int, tile_size: int, overlap: int, scale: int) -> None:
    total = torch.zeros(scale * height, scale * width)
    for tile in plan_tiles(height, width, tile_size, overlap):
        weights = tile.weights(scale)
        assert weights.min() >= 0
        total[tile.slices(scale)] += weights
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width", "tile_size", "overlap"), PLANS)
def test_tiles_are_equal_in_size_inside_and_overlap_enough(
    height: int, width: int, tile_size: int, overlap: int
) -> None:
    tiles = plan_tiles(height, width, tile_size, overlap)
    size = (min(tile_size, height), min(tile_size, width))
    for tile in tiles:
        assert (tile.y1 - tile.y0, tile.x1 - tile.x0) == size
        assert 0 <= tile.y0 < tile.y1 <= height
        assert 0 <= tile.x0 < tile.x1 <= width
    for starts, length in ((tiles[0].row_starts, height), (tiles[0].column_starts, width)):
        gaps = [b - a for a, b in pairwise(starts)]
        assert all(0 < gap <= tile_size - overlap for gap in gaps)
        needed = 1 if length <= tile_size else math.ceil((length - overlap) / (tile_size - overlap))
        assert len(starts) == needed


@pytest.mark.parametrize(("height", "width", "tile_size", "overlap"), PLANS)
def test_blending_the_tiles_of_an_image_gives_the_image(height: int, width: int, tile_size: int, overlap: int) -> None:
    image = torch.rand(3, 2 * height, 2 * width, generator=torch.Generator().manual_seed(0))
    blended = torch.zeros_like(image)
    for tile in plan_tiles(height, width, tile_size, overlap):
        tile.add(blended, image[(..., *tile.slices(2))], scale=2)
    torch.testing.assert_close(blended, image, atol=1e-6, rtol=0)


def test_small_image_is_one_tile_of_weight_one() -> None:
    (tile,) = plan_tiles(5, 7, 64, 16)
    assert (tile.y0, tile.y1, tile.x0, tile.x1) == (0, 5, 0, 7)
    assert torch.equal(tile.weights(4), torch.ones(20, 28))


def test_last_tiles_are_moved_inwards() -> None:
    assert plan_tiles(200, 64, 64, 16)[0].row_starts == (0, 48, 96, 136)


def test_positions_keep_the_grid_of_their_sizes() -> None:
    for tile in plan_tiles(320, 448, 128, 32):
        assert tile.y0 % 32 == tile.x0 % 32 == 0


@pytest.mark.parametrize(("height", "width", "tile_size", "overlap"), [plan for plan in PLANS if plan[3] > 1])
def test_weights_have_no_step(height: int, width: int, tile_size: int, overlap: int) -> None:
    """Towards its neighbours a tile fades out; nowhere does its weight jump."""
    scale = 4
    for tile in plan_tiles(height, width, tile_size, overlap):
        placed = torch.zeros(scale * height, scale * width)
        placed[tile.slices(scale)] = tile.weights(scale)
        # A raised cosine over n samples rises by pi / 2n at most; where three tiles meet, twice that.
        limit = math.pi / (scale * overlap) + 1e-6
        for axis in (0, 1):
            assert placed.diff(dim=axis).abs().amax() <= limit if placed.shape[axis] > 1 else True


def test_two_tiles_blend_as_raised_cosine() -> None:
    first, second = plan_tiles(1, 12, 8, 4)
    ramp = (1 - torch.cos(math.pi * torch.tensor([0.125, 0.375, 0.625, 0.875]))) / 2
    torch.testing.assert_close(first.weights()[0], torch.cat([torch.ones(4), ramp.flip(0)]))
    torch.testing.assert_close(second.weights()[0], torch.cat([ramp, torch.ones(4)]))


def test_half_precision_images_can_be_blended() -> None:
    image = torch.full((3, 40, 40), 0.5, dtype=torch.float16)
    blended = torch.zeros_like(image)
    for tile in plan_tiles(40, 40, 16, 8):
        tile.add(blended, image[(..., *tile.slices())])
    torch.testing.assert_close(blended, image, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 100, 16, 16), "tile overlap 16 must be smaller than the tile size 16"),
        ((100, 100, 16, 40), "tile overlap 40 must be smaller"),
        ((100, 100, 16, -1), "must not be negative"),
        ((100, 100, 0, 0), "tile_size must be at least 1"),
        ((0, 100, 16, 4), "height must be at least 1"),
    ],
)
def test_impossible_plans_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_tiles(*arguments)


@pytest.mark.parametrize("length", [65, 100, 127, 128, 200, 512, 1000])
@pytest.mark.parametrize(("tile_size", "overlap"), [(64, 0), (64, 16), (256, 16), (512, 32)])
def test_even_sides_cover_with_as_few_and_the_smallest_tiles(length: int, tile_size: int, overlap: int) -> None:
    def tiles(side: int) -> int:
        return len(plan_tiles(length, 1, (side, 1), overlap))

    side = even_side(length, tile_size, overlap, 32)
    assert side <= tile_size or side == length
    assert side % 32 == 0 or side == length
    assert tiles(side) == tiles(tile_size)
    smaller = side - 32
    assert side == length or smaller <= overlap or tiles(smaller) > tiles(side)
