"""Files and images for the tests of this folder."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from upsr_core.images.files import DecodedImage

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Only the colour space, bytes 16 to 20, is looked at.
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def random_array(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, depth: int, colour_type: int, rows: list[bytes], chunks: tuple[bytes, ...] = ()
) -> bytes:
    """A PNG by its specification, for the kinds that Pillow and OpenCV don't write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND", b"")


def png_16(array: np.ndarray, chunks: tuple[bytes, ...] = ()) -> bytes:
    height, width, channels = array.shape
    rows = [row.astype(">u2").tobytes() for row in array]
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows, chunks)


def levels_of(image: DecodedImage) -> np.ndarray:
    """(h,w,c) whole numbers as the file holds them."""
    colours = image.rgb[:, :1] if image.grayscale else image.rgb
    pixels = colours if image.alpha is None else torch.cat([colours, image.alpha], 1)
    levels = pixels * (2**image.bit_depth - 1)
    assert (levels - levels.round()).abs().max() < 0.01
    return levels.round().int()[0].permute(1, 2, 0).numpy()


def decoded(array: np.ndarray, **fields: Any) -> DecodedImage:
    """The image (h,w,c) of uint8 or uint16 as `read_image` would give it."""
    pixels = torch.from_numpy(array.astype(np.float32) / np.iinfo(array.dtype).max).permute(2, 0, 1)[None]
    gray, has_alpha = array.shape[2] <= 2, array.shape[2] in (2, 4)
    return DecodedImage(
        rgb=pixels[:, : 1 if gray else 3].repeat(1, 3 if gray else 1, 1, 1),
        alpha=pixels[:, -1:] if has_alpha else None,
        bit_depth=8 * array.itemsize,
        grayscale=gray,
        **fields,
    )
