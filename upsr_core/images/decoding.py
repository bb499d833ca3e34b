"""The bytes of an image file to pixels, as stored, and metadata."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from ..messages import UPSRWarning, one_line
from .exif import ORIENTATION, X_RESOLUTION, set_tags, upright_block
from .xmp import upright_packet

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
LARGEST_DPI = 65535  # JPEG holds no more; a file that says more, or 0, has no resolution
# Exceptions of Pillow on damaged files; they differ by format and by the place of the damage.
DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError),
    *(struct.error, zlib.error),
)


class ImageFileError(ValueError):
    """A file that cannot be read or written: one line that names it and says what to do."""


@dataclass(frozen=True)
class StoredImage:
    """An image as its file stores it.

    Attributes:
        array: (h,w,c) uint8 or uint16; c = 1 gray, 2 with alpha, 3 RGB, 4 with alpha.
        orientation: EXIF orientation that ``array`` still has to be turned by, 1..8.
        exif: EXIF block, beginning ``Exif``, that says orientation 1; or None.
        icc_profile: colour profile of ``array``, or None.
        xmp: XMP packet that says orientation 1, or None.
        dpi: dots per inch of ``array``, horizontally and vertically, or None.
        format: one of READ_FORMATS.
    """

    array: np.ndarray
    orientation: int
    exif: bytes | None
    icc_profile: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None
    format: str


def decode(path: Path, data: bytes) -> StoredImage:
    """Decode ``data``, the content of the file ``path``, a name for messages.

    Raises:
        ImageFileError: it is no image, damaged, of a kind not supported, or too large.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Pillow warns above its limit and refuses above twice of it; a warning comes too late to help.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        stored = _decode(path, data)
    for text in dict.fromkeys(str(warning.message).strip() for warning in caught):
        warnings.warn(f"{path}: {text}", UPSRWarning, stacklevel=2)
    return stored


def _decode(path: Path, data: bytes) -> StoredImage:
    try:
        image = _open(path, data)
        orientation: Any = None
        if isinstance(image, TiffImageFile):
            # Some versions of Pillow and OpenCV rotate TIFFs by the orientation tag: the tag is removed, and we rotate.
            orientation = image.tag_v2.get(ORIENTATION, 1)
            data = set_tags(data, {ORIENTATION: 1}, details=False)
            image = _open(path, data)
        image.load()
    except ImageFileError:
        raise
    except DECODING_ERRORS as error:
        raise _damaged(path, error) from error
    array = _pixels_16(path, image, data) if _has_16_bits(path, image, data) else _pixels_8(path, image, data)
    exif, dpi = None, None
    try:
        orientation = orientation or image.getexif().get(ORIENTATION, 1)
        exif, dpi = upright_block(image), _dpi(image)
    except DECODING_ERRORS as error:
        warnings.warn(f"its EXIF data were left out, they are damaged ({one_line(error)})", stacklevel=2)
    xmp = image.info.get("xmp")
    return StoredImage(
        array=array,
        orientation=orientation if orientation in range(1, 9) else 1,
        exif=exif,
        # A CMYK profile means nothing to the sRGB that these pixels were converted to.
        icc_profile=None if image.mode == "CMYK" else image.info.get("icc_profile") or None,
        xmp=upright_packet(xmp) if isinstance(xmp, bytes) else None,
        dpi=dpi,
        format="JPEG" if image.format == "MPO" else str(image.format),
    )


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    told = image.format not in ("JPEG", "MPO", "TIFF") or image.info.get("jfif_unit") in (1, 2)
    if not told and X_RESOLUTION not in image.getexif():
        return None  # where Pillow says 72 or 1
    dpi = tuple(map(float, image.info.get("dpi", ())))
    return (dpi[0], dpi[1]) if len(dpi) == 2 and all(1 <= side <= LARGEST_DPI for side in dpi) else None


def _damaged(path: Path, error: BaseException) -> ImageFileError:
    return ImageFileError(f"{path}: is damaged or incomplete ({one_line(error)}); get the file again")


def _open(path: Path, data: bytes) -> Image.Image:
    if data[:4] in (b"II+\0", b"MM\0+"):
        raise ImageFileError(f"{path}: is a BigTIFF, which is not supported; save it as TIFF or PNG")
    try:
        # PNGs have checksums, which only this looks at; the image is of no use afterwards.
        Image.open(io.BytesIO(data), formats=READ_FORMATS).verify()
        image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(
            f"{path}: has more than {Image.MAX_IMAGE_PIXELS} pixels, as decompression bombs do; cut it up, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS (--max-pixels) if you trust the file"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageFileError(
            f"{path}: is damaged or of a kind that cannot be read; convert it to {', '.join(READ_FORMATS)}"
        ) from error
    # An MPO is a JPEG with further pictures, such as depth, behind the one to show.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        warnings.warn(f"has {frames} frames or pages; only the first is read", stacklevel=2)
    return image


def _has_16_bits(path: Path, image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16
    if not isinstance(image, TiffImageFile):
        return False
    tags = image.tag_v2
    bits, sample_format = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
    if bits not in (1, 2, 4, 8, 16) or sample_format != 1:
        raise ImageFileError(f"{path}: its values are not 8 or 16 bits, unsigned; convert it to 8 or 16 bits")
    if bits == 16 and tags.get(262) not in (1, 2):
        raise ImageFileError(f"{path}: is a 16-bit TIFF neither gray nor RGB; convert it to RGB")
    if bits == 16 and tags.get(284, 1) != 1:
        # OpenCV would take the first plane for all channels.
        raise ImageFileError(f"{path}: is a 16-bit TIFF with a plane for each channel; save it interleaved")
    return bits == 16


def _pixels_8(path: Path, image: Image.Image, data: bytes) -> np.ndarray:
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    if image.mode == "CMYK":
        warnings.warn("is CMYK and was converted to sRGB", stacklevel=2)
        image = _cmyk_to_srgb(image)
    elif image.mode in ("1", "L", "LA", "La"):
        levels = 2 ** data[24] if image.format == "PNG" else 256
        if image.info.get("transparency", levels) < levels < 256:
            # Pillow scales the pixels to 8 bits, but not always the level that means transparent.
            image.info["transparency"] *= 255 // (levels - 1)
        image = image.convert("LA" if transparent else "L")
    elif image.mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        image = image.convert("RGBA" if transparent else "RGB")
    else:
        raise ImageFileError(f"{path}: its pixels are {image.mode}, which is not supported; convert it to RGB")
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError) as error:
            warnings.warn(f"its CMYK profile was ignored, it is unusable ({one_line(error)})", stacklevel=2)
        else:
            assert converted is not None  # only conversion in place returns None
            return converted
    return image.convert("RGB")


def _pixels_16(path: Path, image: Image.Image, data: bytes) -> np.ndarray:
    """By OpenCV, since Pillow cuts 16-bit RGB down to 8."""
    array: Any
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _damaged(path, error) from error
    if array is None or array.dtype != np.uint16:
        raise ImageFileError(f"{path}: is damaged or a rare kind of 16-bit image; save it as 16-bit RGB PNG")
    array = array[..., None] if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]  # BGR to RGB
    key = image.info.get("transparency")
    if key is not None:
        colours = array[..., : 1 if isinstance(key, int) else 3]
        alpha = np.where((colours == key).all(-1, keepdims=True), 0, 65535).astype(np.uint16)
        return np.concatenate([colours, alpha], axis=2)
    if image.format == "PNG" and data[25] == 4:  # gray with alpha, which OpenCV spreads over four channels
        return array[..., [0, 3]]
    extra = image.tag_v2.get(338, (2,))[0] if isinstance(image, TiffImageFile) else 2
    if extra == 0 and array.shape[2] == 4:
        warnings.warn("has a fourth channel that is no transparency, which was left out", stacklevel=2)
        return array[..., :3]
    if extra == 1:
        # Alpha is multiplied into the colours.
        colours, alpha = array[..., :3], array[..., 3:]
        colours = (colours / np.maximum(alpha, 1)).clip(max=1) * 65535 + 0.5
        return np.concatenate([colours.astype(np.uint16), alpha], axis=2)
    return array
