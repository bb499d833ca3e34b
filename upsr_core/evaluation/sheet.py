"""A sheet of crops: where the methods differ most, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..pixels import to_pil

CROP, GAP, FONT_SIZE = 96, 6, 13
PAPER, INK = (255, 255, 255), (0, 0, 0)


def difference(images: Sequence[torch.Tensor], crop: int = CROP) -> tuple[float, int, int]:
    """The square in which images differ most: the difference, its top and its left.

    Args:
        images: results of one LR image, each (1,3,H,W) in [0,1].
        crop: side of the square; smaller images are taken whole.

    Returns:
        The standard deviation over the images, averaged over the square, and where the square begins.
    """
    spread = torch.cat(list(images)).std(dim=0, correction=0).mean(dim=0)[None, None]
    height, width = spread.shape[-2:]
    sides = min(crop, height), min(crop, width)
    means = F.avg_pool2d(spread, sides, stride=1)[0, 0]
    top, left = divmod(int(means.argmax()), means.shape[1])
    return means.max().item(), top, left


def sheet(rows: Sequence[tuple[str, Mapping[str, torch.Tensor]]], crop: int = CROP, zoom: int = 2) -> Image.Image:
    """The crops as one picture.

    Args:
        rows: for each image its name, and by label the parts to show, each (1,3,h,w) in [0,1]; the same labels in all.
        crop: largest side of a part.
        zoom: side of a shown pixel in pixels.
    """
    labels = list(rows[0][1])
    font = ImageFont.load_default(size=FONT_SIZE)
    side, line = crop * zoom, FONT_SIZE + 2 * GAP
    canvas = Image.new("RGB", (len(labels) * (side + GAP) - GAP, len(rows) * (side + line) + line), PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(labels):
        draw.text((column * (side + GAP) + side // 2, GAP), _fitted(draw, label, font, side), INK, font, anchor="ma")
    for row, (name, parts) in enumerate(rows):
        top = line + row * (side + line)
        for column, label in enumerate(labels):
            part = to_pil(parts[label][0])
            enlarged = part.resize((part.width * zoom, part.height * zoom), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (column * (side + GAP), top))
        draw.text((0, top + side + GAP // 2), name, INK, font)
    return canvas


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, side: int) -> str:
    short = text
    while len(short) > 1 and draw.textlength(short, font) > side:
        short = short[:-2].rstrip("…") + "…"
    return short


def enlarged(lr: torch.Tensor, scale: int) -> torch.Tensor:
    """The LR image with its pixels as squares."""
    pixels = np.repeat(np.repeat(lr.numpy(), scale, axis=2), scale, axis=3)
    return torch.from_numpy(pixels)
