"""How strong fine detail is around each place, compared without regard to where exactly it lies."""

from __future__ import annotations

import torch
import torch.nn.functional as F

DETAIL_TERMS = ("missing_detail", "excess_detail", "grid")
MIN_SIZE = 32
"""Smallest H and W of the images: a whole window of the grid."""

# First differences to four neighbours (right, below, both lower diagonals), then second differences over a cross, a row
# and a column. The positive weights of each filter add up to 0.5 or 1.
_FILTERS = (
    ((0, 0, 0), (0, -0.5, 0.5), (0, 0, 0)),
    ((0, 0, 0), (0, -0.5, 0), (0, 0.5, 0)),
    ((0, 0, 0), (0, -0.5, 0), (0, 0, 0.5)),
    ((0, 0, 0), (0, -0.5, 0), (0.5, 0, 0)),
    ((0, -0.25, 0), (-0.25, 1, -0.25), (0, -0.25, 0)),
    ((0, 0, 0), (0.5, -1, 0.5), (0, 0, 0)),
    ((0, 0.5, 0), (0, -1, 0), (0, 0.5, 0)),
)
_WINDOW = 7


def detail_distances(estimate: torch.Tensor, target: torch.Tensor, scale: int) -> dict[str, torch.Tensor]:
    """Differences of local statistics of fine detail, at full and at half size, by name (`DETAIL_TERMS`).

    A squared error is least for the mean of all plausible textures, which has no texture; an adversarial term rewards
    texture anywhere. Here the mean magnitudes of `_FILTERS`' responses are compared, in each colour by itself.

    Args:
        estimate, target: (B,3,H,W) in [-1,1], sides multiples of the scale, at least `MIN_SIZE`.
        scale: super-resolution factor s, the period of the grid.

    Returns:
        Scalars. ``missing_detail`` and ``excess_detail``: means over windows of 7x7 of what the estimate's magnitudes
        lack, and have too much. ``grid``: how differently they depend on the place in a grid of s pixels, in windows of
        32x32; networks that compute at the LR size draw such a grid.
    """
    missing, excess, grid = (estimate.new_zeros(()) for _ in DETAIL_TERMS)
    for factor in (1, 2):
        one, other = (_magnitudes(image, factor) for image in (estimate, target))
        difference = F.avg_pool2d(one, _WINDOW, stride=2) - F.avg_pool2d(other, _WINDOW, stride=2)
        missing = missing + F.relu(-difference).mean()
        excess = excess + F.relu(difference).mean()
        if scale > factor:
            period = scale // factor
            grid = grid + (_by_place(one, period, factor) - _by_place(other, period, factor)).abs().mean()
    return dict(zip(DETAIL_TERMS, (missing, excess, grid), strict=True))


def _magnitudes(image: torch.Tensor, factor: int) -> torch.Tensor:
    """(3*B,7,H/factor,W/factor): magnitudes of the filters' responses."""
    planes = image.reshape(-1, 1, *image.shape[2:])
    if factor > 1:
        planes = F.avg_pool2d(planes, factor)
    filters = planes.new_tensor(_FILTERS).unsqueeze(1)
    # In half precision what neighbours differ by would be lost in rounding.
    with torch.autocast(image.device.type, enabled=False):
        return F.conv2d(F.pad(planes, (1, 1, 1, 1), mode="replicate"), filters).abs()


def _by_place(magnitudes: torch.Tensor, period: int, factor: int) -> torch.Tensor:
    """Means at each of period^2 places of the grid, less the mean over all places, in windows of 32 HR pixels."""
    window = MIN_SIZE // (period * factor)
    places = F.avg_pool2d(F.pixel_unshuffle(magnitudes, period), window, stride=max(1, window // 2))
    places = places.unflatten(1, (-1, period**2))
    return places - places.mean(2, keepdim=True)
