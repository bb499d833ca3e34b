from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.images import photos
from trainer.losses.detail import DETAIL_TERMS, detail_distances


def values(estimate: torch.Tensor, target: torch.Tensor, scale: int = 4) -> dict[str, float]:
    return {name: value.item() for name, value in detail_distances(estimate, target, scale).items()}


def smoothed(image: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(image, 9, stride=1, padding=4, count_include_pad=False)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return 2 * photos(2, 64) - 1


def test_nothing_differs_from_itself(photo: torch.Tensor) -> None:
    assert values(photo, photo) == dict.fromkeys(DETAIL_TERMS, 0.0)


def test_a_blur_lacks_detail_and_grain_is_too_much_of_it(photo: torch.Tensor) -> None:
    blurred = F.avg_pool2d(photo, 3, stride=1, padding=1, count_include_pad=False)
    found = values(blurred, photo)
    assert found["missing_detail"] > 4 * found["excess_detail"]
    grain = 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    found = values(photo + grain, photo)
    assert found["excess_detail"] > 4 * found["missing_detail"]


def test_where_detail_lies_hardly_counts_and_what_it_is_like_does() -> None:
    noise = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    fur = F.avg_pool2d(noise, (5, 1), stride=1, padding=(2, 0))
    shifted, turned = (values(other, fur) for other in (fur.roll((13, 7), (2, 3)), fur.transpose(2, 3)))
    for name in ("missing_detail", "excess_detail"):
        assert shifted[name] < 0.5 * turned[name]


def test_a_grid_of_the_scale_is_told_from_grain_and_from_other_grids(photo: torch.Tensor) -> None:
    smooth = smoothed(photo)
    column = torch.arange(64)
    found = {period: values(smooth + 0.1 * (column % period == 0), smooth)["grid"] for period in (3, 4)}
    lines = 0.1 * (column % 4 == 0)
    grain = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)) * lines.std()
    assert found[4] > 3 * found[3]
    assert found[4] > 3 * values(smooth + grain, smooth)["grid"]


def test_the_grid_of_other_scales(photo: torch.Tensor) -> None:
    smooth = smoothed(photo)
    lines = {scale: smooth + 0.1 * (torch.arange(64) % scale == 0) for scale in (1, 8)}
    assert values(lines[1], smooth, 1)["grid"] == 0
    assert values(lines[8], smooth, 8)["grid"] > 0.01


def test_gradients_reach_every_pixel(photo: torch.Tensor) -> None:
    estimate = torch.nn.Parameter(photo.flip(-1))
    torch.stack(list(detail_distances(estimate, photo, 4).values())).sum().backward()
    assert estimate.grad is not None
    assert (estimate.grad != 0).float().mean() > 0.95


def test_mixed_precision_leaves_it_in_float32(photo: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        mixed = values(photo.flip(-1), photo)
    assert mixed == values(photo.flip(-1), photo)
