from __future__ import annotations

import pytest
import torch

from upsr_core.resampling import upsample
from upsr_core.upscaling import fill_transparent, upscale_alpha


def _disc(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (((y - height / 2) ** 2 + (x - width / 2) ** 2) < (min(height, width) / 3) ** 2).float()[None, None]


@pytest.mark.parametrize("size", [(1, 9), (32, 32), (37, 50)])
def test_transparent_pixels_take_the_only_colour_there_is(size: tuple[int, int]) -> None:
    alpha = _disc(*size)
    alpha[0, 0, -1, -1] = 0.1
    colour = torch.tensor([0.2, 0.6, 0.9]).view(1, 3, 1, 1)
    filled = fill_transparent(colour * (alpha > 0), alpha)
    torch.testing.assert_close(filled, colour.expand_as(filled))


def test_visible_pixels_stay_and_hidden_colours_come_from_their_neighbours() -> None:
    rgb = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    rgb[..., :20] *= 0.2  # dark left half, light right half
    alpha = torch.ones(2, 1, 24, 40)
    alpha[..., 8:16, 4:8] = 0
    alpha[..., 8:16, 32:36] = 0
    filled = fill_transparent(rgb, alpha)
    visible = (alpha > 0).expand_as(rgb)
    assert torch.equal(filled[visible], rgb[visible])
    assert filled[..., 8:16, 4:8].max() < 0.2
    assert filled[..., 8:16, 32:36].min() > 0.2


def test_nothing_transparent_and_nothing_visible_change_nothing() -> None:
    rgb = torch.rand(2, 3, 11, 13, generator=torch.Generator().manual_seed(0))
    alpha = torch.stack([torch.zeros(1, 11, 13), torch.ones(1, 11, 13)])
    assert torch.equal(fill_transparent(rgb, alpha), rgb)


def test_no_dark_fringe_after_upscaling() -> None:
    alpha = _disc(32, 32)
    rgb = 0.8 * alpha.expand(-1, 3, -1, -1)  # black where nothing is seen
    seen = upscale_alpha(alpha, 4).expand(-1, 3, -1, -1) > 0.05
    assert upsample(rgb, 4)[seen].min() < 0.3
    assert (upsample(fill_transparent(rgb, alpha), 4)[seen] - 0.8).abs().max() < 1e-5


def test_upscaled_alpha_stays_in_range() -> None:
    alpha = _disc(16, 24)
    assert upsample(alpha, 4).max() > 1
    upscaled = upscale_alpha(alpha, 4)
    assert upscaled.shape == (1, 1, 64, 96)
    assert upscaled.min() == 0
    assert upscaled.max() == 1
