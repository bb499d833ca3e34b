"""Image files to tensors and back, alpha, EXIF and ICC included. Files appear whole or not at all."""

from __future__ import annotations

import errno
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from ..choices import WRITE_FORMATS
from ..messages import UPSRWarning, one_line
from ..pixels import LUMA, quantise
from .decoding import ImageFileError, decode
from .encoding import encode
from .exif import HEIGHT, WIDTH, set_tags
from .whole_files import write_whole
from .xmp import resized_packet

LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # limits of libjpeg and libwebp
# Bytes of a JPEG's segment, less the name that an XMP packet has in front.
LARGEST_EXIF, LARGEST_XMP = 65533, 65533 - 29

# By EXIF orientation: how stored pixels (h,w,c) become upright ones.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@dataclass(frozen=True)
class DecodedImage:
    """Content of an image file, upright.

    Attributes:
        rgb: float32 (1,3,h,w) in [0,1]; gray images have three equal channels.
        alpha: float32 (1,1,h,w) in [0,1], 0 transparent, not multiplied into ``rgb``; or None.
        bit_depth: 8 or 16 bits a channel.
        grayscale: whether the file is gray, and is to be written so.
        exif: EXIF block that says orientation 1, beginning ``Exif``; or None.
        icc_profile: ICC colour profile of ``rgb``, or None.
        xmp: XMP packet that says orientation 1, or None.
        dpi: horizontal and vertical dots per inch, or None.
        format: ``"PNG"``, ``"JPEG"``, ``"WEBP"``, ``"TIFF"``, ``"BMP"`` or ``"GIF"``.
    """

    rgb: torch.Tensor
    alpha: torch.Tensor | None = None
    bit_depth: int = 8
    grayscale: bool = False
    exif: bytes | None = None
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str = "PNG"


def read_image(path: str | Path) -> DecodedImage:
    """Read PNG, JPEG, WebP, TIFF, BMP or GIF.

    EXIF orientation is applied. Of several frames or pages the first is taken, and CMYK is converted to sRGB,
    both with a warning.

    Raises:
        ImageFileError: the file is missing, damaged, no image, or larger than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    path = Path(path)
    return decode_image(_read_bytes(path), path)


def decode_image(data: bytes, name: str | Path) -> DecodedImage:
    """The image whose file holds ``data``; ``name`` stands for it in messages. See `read_image`."""
    if not data:
        raise ImageFileError(f"{name}: is empty (0 bytes); get the file again")
    stored = decode(Path(name), data)
    array = _UPRIGHT[stored.orientation](stored.array)
    levels = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
    pixels = levels / float(np.iinfo(array.dtype).max)
    channels = pixels.shape[1]
    gray, has_alpha = channels <= 2, channels in (2, 4)
    return DecodedImage(
        rgb=pixels[:, : 1 if gray else 3].expand(-1, 3, -1, -1).contiguous(),
        alpha=pixels[:, -1:].contiguous() if has_alpha else None,
        bit_depth=8 * array.itemsize,
        grayscale=gray,
        exif=stored.exif,
        icc_profile=stored.icc_profile,
        xmp=stored.xmp,
        dpi=stored.dpi[::-1] if stored.dpi and stored.orientation >= 5 else stored.dpi,
        format=stored.format,
    )


def check_output(path: str | Path, height: int, width: int, has_alpha: bool) -> str:
    """Check, before long work, that `write_image` can write such an image there.

    Args:
        path: file to write.
        height, width: size of the image in pixels.
        has_alpha: whether it has transparency that is not to be flattened.

    Returns:
        The format by the suffix: ``"PNG"``, ``"JPEG"``, ``"WEBP"`` or ``"TIFF"``.

    Raises:
        ImageFileError: unknown suffix, no such folder, a format that cannot hold transparency or this size.
    """
    path = Path(path)
    file_format = WRITE_FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise ImageFileError(f"{path}: not a kind we write; end its name in {', '.join(WRITE_FORMATS)}")
    try:
        folder_exists, is_folder = path.parent.is_dir(), path.is_dir()
    except OSError as error:
        raise _not_writable(path, error) from error
    if not folder_exists:
        raise ImageFileError(f"{path}: there is no folder {path.parent}; create it first")
    if is_folder:
        raise ImageFileError(f"{path}: is a folder; name a file")
    check_format(file_format, path, height, width, has_alpha)
    return file_format


def check_format(file_format: str, name: str | Path, height: int, width: int, has_alpha: bool) -> None:
    """Check that a format can hold such an image, see `check_output`; ``name`` stands for the file in messages.

    Raises:
        ImageFileError: the format cannot hold transparency or this size.
    """
    if has_alpha and file_format == "JPEG":
        raise ImageFileError(f"{name}: JPEG has no transparency; write PNG, WebP or TIFF, or give a background colour")
    largest = LARGEST_SIDE.get(file_format)
    if largest is not None and max(height, width) > largest:
        raise ImageFileError(
            f"{name}: {width}x{height} is too large for {file_format}, at most {largest}; write PNG or TIFF"
        )


def write_image(
    path: str | Path,
    image: DecodedImage,
    *,
    quality: int = 95,
    bit_depth: int | None = None,
    background: tuple[float, float, float] | None = None,
) -> None:
    """Write PNG, JPEG, WebP or TIFF, by the suffix of ``path``; a file of that name is replaced at the very end.

    Args:
        path: file to write, in an existing folder.
        image, quality, bit_depth, background: see `encode_image`.

    Raises:
        ImageFileError: see `check_output`; or the place is full or forbidden. Nothing is left behind.
        ValueError: another argument is out of its range or shape.
    """
    path = Path(path)
    _check_arguments(image, quality, bit_depth)
    height, width = image.rgb.shape[2:]
    file_format = check_output(path, height, width, has_alpha=image.alpha is not None and background is None)
    data = encode_image(image, file_format, path, quality=quality, bit_depth=bit_depth, background=background)
    try:
        write_whole(path, data)
    except OSError as error:
        raise _not_writable(path, error) from error


def encode_image(
    image: DecodedImage,
    file_format: str,
    name: str | Path,
    *,
    quality: int = 95,
    bit_depth: int | None = None,
    background: tuple[float, float, float] | None = None,
) -> bytes:
    """The bytes of an image file.

    Values are rounded half up and clipped. Gray images are written gray, by their luma, where the format can. EXIF,
    XMP, ICC profile and, but for WebP, the dots per inch are kept.

    Args:
        image: its ``format`` is not read.
        file_format: ``"PNG"``, ``"JPEG"``, ``"WEBP"`` or ``"TIFF"``.
        name: of the file, for messages.
        quality: 1..100 of JPEG and WebP.
        bit_depth: 8 or 16, by default the image's own; JPEG and WebP hold 8, with a warning where 16 are due.
        background: RGB in [0,1] to put behind transparent pixels; the file then has no transparency.

    Raises:
        ImageFileError: the format cannot hold the image.
        ValueError: another argument is out of its range or shape.
    """
    _check_arguments(image, quality, bit_depth)
    flatten = image.alpha is not None and background is not None
    height, width = image.rgb.shape[2:]
    check_format(file_format, name, height, width, has_alpha=image.alpha is not None and not flatten)
    depth = bit_depth or image.bit_depth
    if depth == 16 and file_format in ("JPEG", "WEBP"):
        loss = f"{name}: {file_format} holds 8 of the 16 bits a channel; PNG and TIFF hold all"
        warnings.warn(loss, UPSRWarning, stacklevel=2)
        depth = 8
    gray = image.grayscale and file_format != "WEBP" and not (flatten and len(set(background or ())) > 1)
    array = _levels(image, background if flatten else None, gray, depth)
    icc_profile, exif, xmp = image.icc_profile, image.exif, image.xmp
    losses = []
    # Gray with alpha is written as RGB in 16 bits.
    if icc_profile is not None and icc_profile[16:20] == b"GRAY" and not (gray and (depth == 8 or array.shape[2] == 1)):
        losses.append("its profile for gray does not fit RGB pixels")
        icc_profile = None
    if file_format == "JPEG" and exif is not None and len(exif) > LARGEST_EXIF:
        losses.append(f"JPEG holds no EXIF data of {len(exif)} bytes")
        exif = None
    if file_format == "JPEG" and xmp is not None and len(xmp) > LARGEST_XMP:
        losses.append(f"JPEG holds no XMP packet of {len(xmp)} bytes")
        xmp = None
    for loss in losses:
        warnings.warn(f"{name}: {loss}; left out", UPSRWarning, stacklevel=2)
    try:
        # EXIF and XMP may hold the size of the image before the enlargement.
        exif = exif and set_tags(exif, {WIDTH: width, HEIGHT: height})
        xmp = xmp and resized_packet(xmp, height, width)
        return encode(array, file_format, quality, exif, icc_profile, xmp, image.dpi)
    except (OSError, ValueError, OverflowError, struct.error, cv2.error) as error:
        raise ImageFileError(
            f"{name}: {file_format} cannot hold this image ({one_line(error)}); write another format"
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ImageFileError(f"{path}: is a folder; name an image file in it")
        if path.exists() and not path.is_file():
            raise ImageFileError(f"{path}: is not a regular file; name an image file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _check_arguments(image: DecodedImage, quality: int, bit_depth: int | None) -> None:
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1..100, not {quality}")
    if bit_depth not in (None, 8, 16):
        raise ValueError(f"bit_depth must be 8 or 16, not {bit_depth}")
    rgb, alpha = image.rgb, image.alpha
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3) or 0 in rgb.shape:
        raise ValueError(f"image.rgb must be (1,3,h,w), not {tuple(rgb.shape)}")
    if alpha is not None and alpha.shape != (1, 1, *rgb.shape[2:]):
        raise ValueError(f"image.alpha must be (1,1,{rgb.shape[2]},{rgb.shape[3]}), not {tuple(alpha.shape)}")
    if rgb.isnan().any() or (alpha is not None and alpha.isnan().any()):
        raise ValueError("image holds NaN; nothing is written")


def _levels(image: DecodedImage, background: tuple[float, float, float] | None, gray: bool, depth: int) -> np.ndarray:
    """(h,w,c) uint8 or uint16 as the file is to hold it."""
    colours = image.rgb.cpu().float()
    alpha = None if image.alpha is None else image.alpha.cpu().float()
    if background is not None and alpha is not None:
        behind = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1)
        colours, alpha = torch.lerp(behind, colours, alpha), None
    if gray:
        colours = (colours * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    pixels = colours if alpha is None else torch.cat([colours, alpha], dim=1)
    levels = quantise(pixels, 2**depth - 1)[0].permute(1, 2, 0)
    return levels.numpy().astype(np.uint8 if depth == 8 else np.uint16)


def _not_writable(path: Path, error: OSError) -> ImageFileError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space or write elsewhere" if full else "name a file in a folder you may write to"
    return ImageFileError(f"{path}: cannot be written ({error.strerror}); {remedy}")
