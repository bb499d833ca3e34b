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
    return tables.to(device=device, dtype=torch.float32)


def _code_plane(plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantises the block DCT of a plane (B, C, H, W) in 0..255 with its table (B, 64)."""
    batch, channels, height, width = plane.shape
    padded = F.pad(plane - 128, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    dct = _constants(plane.device)[2]
    blocks = padded.reshape(batch, channels, rows, 8, columns, 8).transpose(3, 4).reshape(batch, -1, 64)
    step = table[:, None]
    quantised = torch.round(blocks @ dct.T / step)
    blocks = (quantised * step) @ dct
    decoded = blocks.view(batch, channels, rows, columns, 8, 8).transpose(3, 4)
    decoded = decoded.reshape(batch, channels, rows * 8, columns * 8)[..., :height, :width]
    # Half up as in libjpeg: flat blocks often lie half way, since their value is a multiple of step / 8.
    return torch.floor(decoded + 128.5).clamp_(0, 255)


def jpeg_round_trip(image: torch.Tensor, quality: Sequence[int]) -> torch.Tensor:
    """What a baseline 4:2:0 JPEG of the image decodes to.

    image: float32 (B, 3, H, W) in [0, 1], rounded to 8 bits first; quality: 1..100 for each sample.
    Returns the same shape, whole multiples of 1/255. ValueError for another shape or quality.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"JPEG needs images of shape (B, 3, H, W), got {tuple(image.shape)}")
    if len(quality) != image.shape[0]:
        raise ValueError(f"JPEG needs one quality per image: {image.shape[0]} images, {len(quality)} values")
    batch, _, height, width = image.shape
    to_ycbcr, to_rgb, _ = _constants(image.device)
    tables = quantisation_tables(quality, image.device)

    rgb = torch.round(image * 255).clamp_(0, 255).reshape(batch, 3, -1)
    ycbcr = (to_ycbcr @ rgb).view(batch, 3, height, width)
    luma = _code_plane(torch.round(ycbcr[:, :1]), tables[:, 0])

    chroma = torch.round(ycbcr[:, 1:] + 128).clamp_(0, 255)
    # libjpeg fills the last blocks sideways before it averages, and downwards (in _code_plane) after.
    chroma = F.avg_pool2d(F.pad(chroma, (0, -width % 16, 0, height % 2), mode="replicate"), 2)
    # libjpeg rounds halves down in even and up in odd columns, so that they do not shift the colour.
    columns = torch.arange(chroma.shape[-1], device=image.device)
    chroma = _code_plane(torch.floor(chroma + 0.25 + 0.25 * (columns % 2)), tables[:, 1])
    # Doubling with weights 3/4 and 1/4 is libjpeg's default ("fancy") chroma upsampling.
    chroma = chroma[..., : (width + 1) // 2]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    chroma = torch.round(chroma[..., :height, :width]) - 128

    rgb = to_rgb @ torch.cat([luma, chroma], dim=1).reshape(batch, 3, -1)
    return (torch.round(rgb).clamp_(0, 255) / 255).view(batch, 3, height, width)
