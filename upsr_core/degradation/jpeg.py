"""JPEG's loss in torch: colour conversion, 4:2:0 chroma, 8x8 DCT and quantisation as libjpeg does them.

The entropy coder is left out, since it loses nothing. Tables and steps: ITU-T T.81, Annex A and K; the
quality scaling, the chroma filters and the padding are libjpeg's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from upsr_core.degradation.ragged import RaggedImages, to_device

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
    """RGB -> YCbCr and back, (3,3) each, and the DCT of a flattened 8x8 block, (64,64)."""
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
    """Luma and chroma tables (B,2,64) for libjpeg's quality 1..100, one per sample; values 1..255."""
    for value in quality:
        if not 1 <= value <= 100:
            raise ValueError(f"JPEG quality must lie in 1..100, got {value}")
    percent = [5000 // value if value < 50 else 200 - 2 * value for value in quality]
    scaled = torch.tensor([LUMA_TABLE, CHROMA_TABLE]) * torch.tensor(percent)[:, None, None]
    tables = torch.div(scaled + 50, 100, rounding_mode="floor").clamp_(1, 255)
    return to_device(tables.float(), torch.device(device))


def _code_plane(plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantise the block DCT of a plane (B,C,H,W) in 0..255, sides multiples of 8, with its table (B,64)."""
    batch, channels, height, width = plane.shape
    rows, columns = height // 8, width // 8
    dct = _constants(plane.device)[2]
    blocks = (plane - 128).reshape(batch, channels, rows, 8, columns, 8).transpose(3, 4).reshape(batch, -1, 64)
    step = table[:, None]
    quantised = torch.round(blocks @ dct.T / step)
    blocks = (quantised * step) @ dct
    decoded = blocks.view(batch, channels, rows, columns, 8, 8).transpose(3, 4).reshape(plane.shape)
    # Half up as in libjpeg: flat blocks often lie half way, since their value is a multiple of step / 8.
    return torch.floor(decoded + 128 + 0.5).clamp(0, 255)


def jpeg_round_trip(images: RaggedImages, quality: Sequence[int | None]) -> RaggedImages:
    """Each image after a baseline 4:2:0 JPEG.

    Args:
        images: float32 (B,3,H,W) in [0,1], rounded to 8 bits first.
        quality: 1..100 for each sample; None leaves it as it is.

    Returns:
        The same shapes; whole multiples of 1/255.

    Raises:
        ValueError: another shape or quality.
    """
    _check(images, quality)
    pixels = images.pixels
    batch, _, height, width = pixels.shape
    coded = (height + -height % 16, width + -width % 16)
    to_ycbcr, to_rgb, _ = _constants(pixels.device)
    tables = quantisation_tables([50 if value is None else value for value in quality], pixels.device)

    rgb = torch.floor(images.extended(0, coded, "replicate") * 255 + HALF_LEVEL).clamp(0, 255)
    ycbcr = (to_ycbcr @ rgb.reshape(batch, 3, -1)).view(batch, 3, *coded)
    luma = _code_plane(torch.round(ycbcr[:, :1]), tables[:, 0])

    # libjpeg fills the last blocks sideways before it averages, and downwards after.
    chroma = F.avg_pool2d(torch.round(ycbcr[:, 1:] + 128).clamp(0, 255), 2)
    # libjpeg rounds halves down in even and up in odd columns, so that they do not shift the colour.
    half = 0.25 + 0.25 * (torch.arange(chroma.shape[-1], device=pixels.device) % 2)
    chroma = torch.floor(chroma + half)
    halved = tuple(((h + 1) // 2, (w + 1) // 2) for h, w in images.sizes)
    full_width = tuple((h, chroma.shape[-1]) for h, _ in halved)
    chroma = RaggedImages(chroma, full_width).extended(0, (coded[0] // 2, coded[1] // 2), "replicate")
    chroma = _code_plane(chroma, tables[:, 1])
    # Doubling with weights 3/4 and 1/4 is libjpeg's default ("fancy") chroma upsampling.
    chroma = RaggedImages(chroma, halved).extended(0, (coded[0] // 2, coded[1] // 2), "replicate")
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    chroma = torch.round(chroma) - 128

    rgb = (to_rgb @ torch.cat([luma, chroma], dim=1).reshape(batch, 3, -1)).view(batch, 3, *coded)
    decoded = torch.round(rgb[..., :height, :width]).clamp(0, 255) / 255
    if None in quality:
        kept = to_device([value is None for value in quality], pixels.device)
        decoded = torch.where(kept[:, None, None, None], pixels, decoded)
    return RaggedImages(decoded, images.sizes)


def _check(images: RaggedImages, quality: Sequence[int | None]) -> None:
    if images.pixels.ndim != 4 or images.pixels.shape[1] != 3:
        raise ValueError(f"JPEG needs images of shape (B,3,H,W), got {tuple(images.pixels.shape)}")
    if len(quality) != len(images):
        raise ValueError(f"JPEG needs one quality per image: {len(images)} images, {len(quality)} values")
