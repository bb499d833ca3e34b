"""Letters and signs drawn onto training crops: photos hold too few of them to learn their sharp, straight edges."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.data.sources.base import Pixels
from trainer.typed_yaml import ConfigError
from upsr_core.messages import one_line

FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
# All is drawn so many times larger and then reduced: Pillow draws lines without antialiasing.
_OVERSIZE = 3
_CHARACTERS = string.ascii_letters + string.digits * 2 + "&!?.,-%"


class Lettering:
    """Draws words, some on signs, and straight bars onto crops of photos.

    Args:
        share: of the crops that are drawn on, in [0,1].
        fonts: folder of TrueType and OpenType fonts, searched with its subfolders; without it Pillow's own is used.

    Raises:
        ConfigError: there is no font in the folder, or one that cannot be read.
    """

    def __init__(self, share: float, fonts: Path | None = None) -> None:
        self.share = share
        self._fonts: Sequence[Path | None] = [None]
        if fonts is not None:
            paths = sorted(path for path in fonts.rglob("*") if path.suffix.lower() in FONT_SUFFIXES)
            if not paths:
                raise ConfigError(f"data.fonts: no font ({', '.join(FONT_SUFFIXES)}) in {fonts}; name another folder")
            for path in paths:
                _checked(path)
            self._fonts = paths

    def __call__(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """(H,W,3) uint8 to the same, drawn on or not."""
        if rng.random() >= self.share:
            return pixels
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for _ in range(int(rng.integers(1, 4))):
            color = _color(rng)
            if rng.random() < 0.25:
                _paste(image, color, _bar(image.size, rng), rng.uniform(0.6, 1))
                continue
            word, sign = self._word(image.size, rng)
            if rng.random() < 0.5:
                _paste(image, color, sign, rng.uniform(0.8, 1))
                color = _contrasting(color, rng)
            _paste(image, color, word, rng.uniform(0.8, 1))
        return np.asarray(image)

    def _word(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
        """Masks of a word and of a sign behind it, anywhere on an image of this size."""
        # Capitals of a fifth of a crop of 128 are some 6 LR pixels tall, smaller ones can hardly be told apart in LR.
        height = _OVERSIZE * rng.uniform(0.1, 0.45) * min(size)
        font = _font(self._fonts[int(rng.integers(len(self._fonts)))], max(8, round(height)))
        text = "".join(rng.choice(list(_CHARACTERS), int(rng.integers(1, 9))))
        if rng.random() < 0.4:
            text = text.upper()
        stroke = int(rng.integers(0, 2) * height / 20)
        left, top, right, bottom = font.getbbox(text, stroke_width=stroke)
        margin = round(rng.uniform(0.1, 0.5) * height)
        box = (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin)
        word, sign = Image.new("L", box), Image.new("L", box, 255)
        ImageDraw.Draw(word).text((margin - left, margin - top), text, fill=255, font=font, stroke_width=stroke)
        coefficients = _placement(box, size, rng)
        target = (_OVERSIZE * size[0], _OVERSIZE * size[1])
        word, sign = (
            mask.transform(target, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR).resize(
                size, Image.Resampling.BOX
            )
            for mask in (word, sign)
        )
        return word, sign


def _checked(path: Path) -> None:
    try:
        ImageFont.truetype(str(path), 20)
    except OSError as error:
        raise ConfigError(f"data.fonts: {path} cannot be read ({one_line(error)}); take it out") from error


@lru_cache(maxsize=256)
def _font(path: Path | None, height: int) -> ImageFont.FreeTypeFont:
    if path is not None:
        return ImageFont.truetype(str(path), height)
    font = ImageFont.load_default(height)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _placement(box: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> tuple[float, ...]:
    """Affine coefficients that turn, slant and stretch a box, and put its centre at random onto the oversize image."""
    angle = np.deg2rad(rng.normal(0, 12) if rng.random() < 0.6 else 0)
    stretch, slant = rng.uniform(0.6, 1.3), rng.normal(0, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.array([[stretch, slant], [0, 1]]))
    centre = np.array([rng.uniform(0.2, 0.8) * _OVERSIZE * side for side in size])
    offset = np.array(box) / 2 - inverse @ centre
    return tuple(float(v) for v in (*inverse[0], offset[0], *inverse[1], offset[1]))


def _bar(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Mask of a straight bar of any direction and width through an image of this size."""
    mask = Image.new("L", (_OVERSIZE * size[0], _OVERSIZE * size[1]))
    ends = [tuple(_OVERSIZE * rng.uniform(-0.3, 1.3, 2) * size) for _ in range(2)]
    ImageDraw.Draw(mask).line(ends, fill=255, width=round(_OVERSIZE * rng.uniform(1, 0.12 * min(size))))
    return mask.resize(size, Image.Resampling.BOX)


def _color(rng: np.random.Generator) -> np.ndarray:
    """Gray, black or white as often as any colour."""
    if rng.random() < 0.5:
        return np.full(3, rng.choice([0.05, 0.95, rng.uniform(0, 1)]))
    return rng.uniform(0, 1, 3)


def _contrasting(color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour at least a third lighter or darker."""
    while abs((other := _color(rng)).mean() - color.mean()) < 1 / 3:
        pass
    return other


def _paste(image: Image.Image, color: np.ndarray, mask: Image.Image, opacity: float) -> None:
    image.paste(tuple(round(255 * float(v)) for v in color), mask=mask.point([round(opacity * v) for v in range(256)]))
