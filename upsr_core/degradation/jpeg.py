"""JPEG's loss in torch: colour conversion, 4:2:0 chroma, 8x8 DCT and quantisation as libjpeg does them.

The entropy coder is left out, since it loses nothing. Tables and steps: ITU-T T.81, Annex A and K; the
quality scaling, the chroma filters and the padding are libjpeg's. Rounding, which has no useful gradient, can be
replaced; the cubic is that of Shin and Song, JPEG-resistant Adversarial Images (NIPS 2017 workshop).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from upsr_core.degradation.ragged import RaggedImages, to_device

Differentiable = Literal["straight_through", "cubic"]

# Added before rounding down to whole levels. Resizing an 8-bit image by a simple factor gives exact halves, whose last
# digit depends on the batch and the device: with a little more than a half, all of them go up.
HALF_LEVEL = 0.5 + 2**-12

# ITU-T T.81, Tables K.1 and K.2, row by row.
LUMA_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMA_TABLE = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip


@functools.cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """RGB -> YCbCr and back, (3, 3) each, and the DCT of a flattened 8x8 block, (64, 64)."""
    to_ycbcr = torch.tensor(
        [
            [0.299, 0.587, 0.114],
            [-0.168735892, -0.331264108, 0.5],
            [0.5, -0.418687589, -0.081312411],
        ],
        dtype=torch.float64,
    )
    index = torch.arange(8, dtype=torch.float64)
    dct = 0.5 * torch.cos((2 * index[None, :] + 1) * index[:, None] * math.pi / 16)
    dct[0] = math.sqrt(1 / 8)
    to_rgb = torch.linalg.inv(to_ycbcr)
    return to_ycbcr.float().to(device), to_rgb.float().to(device), torch.kron(dct, dct).float().to(device)


def quantisation_tables(quality: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
    """Luma and chroma tables (B, 2, 64) for libjpeg's quality 1..100, one per sample; values 1..255."""
    for value in quality:
        if not 1 <= value <= 100:
            raise ValueError(f"JPEG quality must lie in 1..100, got {value}")
    percent = [5000 // value if value < 50 else 200 - 2 * value for value in quality]
    scaled = torch.tensor([LUMA_TABLE, CHROMA_TABLE]) * torch.tensor(percent)[:, None, None]
    tables = torch.div(scaled + 50, 100, rounding_mode="floor").clamp_(1, 255)
    return to_device(tables.float(), torch.device(device))


class _Rounding:
    """Rounding to whole numbers, with a gradient or without."""

    def __init__(self, differentiable: Differentiable | None):
        self.differentiable = differentiable

    def level(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest whole number, for values of pixels."""
        return self._level(x, torch.round)

    def level_half_up(self, x: torch.Tensor, half: torch.Tensor | float = 0.5) -> torch.Tensor:
        """The next whole number at or below x + half, for values of pixels."""
        return self._level(x, lambda values: torch.floor(values + half))

    def coefficient(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest whole number, for DCT coefficients in units of their step."""
        if self.differentiable != "cubic":
            return self._level(x, torch.round)
        whole = torch.round(x.detach())
        return whole + (x - whole) ** 3

    def _level(self, x: torch.Tensor, rounded: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if self.differentiable is None:
            return rounded(x)
        # A cubic would stop every gradient of an 8-bit image, whose values are whole to begin with.
        return x if self.differentiable == "cubic" else x + (rounded(x) - x).detach()


def _code_plane(plane: torch.Tensor, table: torch.Tensor, rounding: _Rounding) -> torch.Tensor:
    """Quantises the block DCT of a plane (B, C, H, W) in 0..255, sides multiples of 8, with its table (B, 64)."""
    batch, channels, height, width = plane.shape
    rows, columns = height // 8, width // 8
    dct = _constants(plane.device)[2]
    blocks = (plane - 128).reshape(batch, channels, rows, 8, columns, 8).transpose(3, 4).reshape(batch, -1, 64)
    step = table[:, None]
    quantised = rounding.coefficient(blocks @ dct.T / step)
    blocks = (quantised * step) @ dct
    decoded = blocks.view(batch, channels, rows, columns, 8, 8).transpose(3, 4).reshape(plane.shape)
    # Half up as in libjpeg: flat blocks often lie half way, since their value is a multiple of step / 8.
    return rounding.level_half_up(decoded + 128).clamp(0, 255)


def jpeg_round_trip(
    images: RaggedImages, quality: Sequence[int | None], differentiable: Differentiable | None = None
) -> RaggedImages:
    """What a baseline 4:2:0 JPEG of each image decodes to.

    Args:
        images: float32 (B, 3, H, W) in [0, 1], rounded to 8 bits first.
        quality: 1..100 for each sample; None leaves it as it is.
        differentiable: what becomes of each rounding. None: it is one, and the gradient is zero.
            "straight_through": the same result, with the gradient of the identity. "cubic": a coefficient x that
            rounds to r becomes r + (x - r)^3, and pixels are not rounded; not quite JPEG, but the gradient is that of
            the result. It is 0 for a coefficient that is whole already. Neither has one where a pixel is clipped.

    Returns:
        The same shapes; whole multiples of 1/255, but for "cubic".

    Raises:
        ValueError: another shape, quality or kind of gradient.
    """
    _check(images, quality, differentiable)
    rounding = _Rounding(differentiable)
    pixels = images.pixels
    batch, _, height, width = pixels.shape
    coded = (height + -height % 16, width + -width % 16)
    to_ycbcr, to_rgb, _ = _constants(pixels.device)
    tables = quantisation_tables([50 if value is None else value for value in quality], pixels.device)

    rgb = rounding.level_half_up(images.extended(0, coded, "replicate") * 255, HALF_LEVEL).clamp(0, 255)
    ycbcr = (to_ycbcr @ rgb.reshape(batch, 3, -1)).view(batch, 3, *coded)
    luma = _code_plane(rounding.level(ycbcr[:, :1]), tables[:, 0], rounding)

    # libjpeg fills the last blocks sideways before it averages, and downwards after.
    chroma = F.avg_pool2d(rounding.level(ycbcr[:, 1:] + 128).clamp(0, 255), 2)
    # libjpeg rounds halves down in even and up in odd columns, so that they do not shift the colour.
    half = 0.25 + 0.25 * (torch.arange(chroma.shape[-1], device=pixels.device) % 2)
    chroma = rounding.level_half_up(chroma, half)
    halved = tuple(((h + 1) // 2, (w + 1) // 2) for h, w in images.sizes)
    full_width = tuple((h, chroma.shape[-1]) for h, _ in halved)
    chroma = RaggedImages(chroma, full_width).extended(0, (coded[0] // 2, coded[1] // 2), "replicate")
    chroma = _code_plane(chroma, tables[:, 1], rounding)
    # Doubling with weights 3/4 and 1/4 is libjpeg's default ("fancy") chroma upsampling.
    chroma = RaggedImages(chroma, halved).extended(0, (coded[0] // 2, coded[1] // 2), "replicate")
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    chroma = rounding.level(chroma) - 128

    rgb = (to_rgb @ torch.cat([luma, chroma], dim=1).reshape(batch, 3, -1)).view(batch, 3, *coded)
    decoded = rounding.level(rgb[..., :height, :width]).clamp(0, 255) / 255
    if None in quality:
        kept = to_device([value is None for value in quality], pixels.device)
        decoded = torch.where(kept[:, None, None, None], pixels, decoded)
    return RaggedImages(decoded, images.sizes)


def _check(images: RaggedImages, quality: Sequence[int | None], differentiable: str | None) -> None:
    if images.pixels.ndim != 4 or images.pixels.shape[1] != 3:
        raise ValueError(f"JPEG needs images of shape (B, 3, H, W), got {tuple(images.pixels.shape)}")
    if len(quality) != len(images):
        raise ValueError(f"JPEG needs one quality per image: {len(images)} images, {len(quality)} values")
    if differentiable not in (None, "straight_through", "cubic"):
        raise ValueError(f'differentiable must be None, "straight_through" or "cubic", got {differentiable!r}')
