"""The bytes of an image file to pixels, as stored, and what stands beside them."""

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

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
# What Pillow raises on damaged files, by format and place of the damage.
DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError),
    *(struct.error, zlib.error),
)
ORIENTATION = 0x0112
# A TIFF's first directory mixes these with the layout of its pixels, which must not go into another file:
# description, make, model, orientation, resolution, software, date, artist, copyright, EXIF, GPS.
_DESCRIPTIVE_TAGS = {270, 271, 272, ORIENTATION, 282, 283, 296, 305, 306, 315, 33432, 0x8769, 0x8825}


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
        format: one of READ_FORMATS.
    """

    array: np.ndarray
    orientation: int
    exif: bytes | None
    icc_profile: bytes | None
    format: str


def decode(path: Path, data: bytes) -> StoredImage:
    """Decode ``data``, the content of the file ``path``, a name for messages.

    Raises:
        ImageFileError: it is no image, damaged, of a kind not supported, or too large.
    """
    image = _open(path, data)
    orientation = _orientation(path, image)
    sixteen_bit = _has_16_bits(path, image, data)
    try:
        image.load()
    except DECODING_ERRORS as error:
        raise _damaged(path, error) from error
    if sixteen_bit:
        array = _pixels_16(path, image, data)
    else:
        array = _pixels_8(path, image, data)
        # Pillow turns TIFFs upright while loading, and then takes the orientation out.
        orientation = _orientation(path, image)
    return StoredImage(
        array=array,
        orientation=orientation,
        exif=_kept_exif(path, image),
        # A CMYK profile means nothing to the sRGB that these pixels were converted to.
        icc_profile=None if image.mode == "CMYK" else image.info.get("icc_profile") or None,
        format="JPEG" if image.format == "MPO" else str(image.format),
    )


def one_line(error: BaseException) -> str:
    """The error's text in one line, for use in another."""
    return " ".join(str(error).split()) or type(error).__name__


def _damaged(path: Path, error: BaseException) -> ImageFileError:
    return ImageFileError(f"{path}: is damaged or incomplete ({one_line(error)}); get the file again")


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns above its limit and refuses above twice of it; a warning would come too late to help.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(
            f"{path}: has more than {Image.MAX_IMAGE_PIXELS} pixels, as decompression bombs do; cut it up, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageFileError(
            f"{path}: is damaged or of a kind we don't read; convert it to {', '.join(READ_FORMATS)}"
        ) from error
    except DECODING_ERRORS as error:
        raise _damaged(path, error) from error
    # An MPO is a JPEG with further pictures, such as depth, behind the one to show.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        warnings.warn(f"{path}: has {frames} frames or pages; only the first is read", stacklevel=2)
    return image


def _has_16_bits(path: Path, image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, sample_format = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
    if bits not in (1, 2, 4, 8, 16) or sample_format != 1:
        raise ImageFileError(f"{path}: its values are not 8 or 16 bits, unsigned; convert it to 8 or 16 bits")
    if bits == 16 and tags.get(262) not in (1, 2):
        raise ImageFileError(f"{path}: is a 16-bit TIFF neither gray nor RGB; convert it to RGB")
    return bits == 16


def _pixels_8(path: Path, image: Image.Image, data: bytes) -> np.ndarray:
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    if image.mode == "CMYK":
        warnings.warn(f"{path}: is CMYK and was converted to sRGB", stacklevel=2)
        image = _cmyk_to_srgb(path, image)
    elif image.mode in ("1", "L", "LA", "La"):
        if image.format == "PNG" and data[24] in (2, 4) and "transparency" in image.info:
            # Pillow scales the pixels to 8 bits, but not the level that means transparent.
            image.info["transparency"] *= 255 // (2 ** data[24] - 1)
        image = image.convert("LA" if transparent else "L")
    elif image.mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        image = image.convert("RGBA" if transparent else "RGB")
    else:
        raise ImageFileError(
            f"{path}: its pixels are {image.mode}, which is not supported; convert it to RGB"
        )
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _cmyk_to_srgb(path: Path, image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError) as error:
            warnings.warn(
                f"{path}: its CMYK profile was ignored, it is unusable ({one_line(error)})", stacklevel=2
            )
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
    if image.format == "TIFF" and image.tag_v2.get(338, (2,))[0] == 1:  # type: ignore[attr-defined]
        # Alpha is multiplied into the colours.
        colours, alpha = array[..., :3], array[..., 3:]
        colours = (colours / np.maximum(alpha, 1)).clip(max=1) * 65535 + 0.5
        return np.concatenate([colours.astype(np.uint16), alpha], axis=2)
    return array


def _orientation(path: Path, image: Image.Image) -> int:
    orientation = _exif(path, image).get(ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _exif(path: Path, image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except DECODING_ERRORS as error:
        return _left_out(path, image, error)


def _left_out(path: Path, image: Image.Image, error: Exception) -> Image.Exif:
    warnings.warn(f"{path}: its EXIF data were left out, they are damaged ({one_line(error)})", stacklevel=2)
    image.info.pop("exif", None)
    return Image.Exif()


def _kept_exif(path: Path, image: Image.Image) -> bytes | None:
    exif = _exif(path, image)
    if image.format == "TIFF":
        for tag in set(exif) - _DESCRIPTIVE_TAGS:
            del exif[tag]
    if not exif:
        return None
    exif[ORIENTATION] = 1
    try:
        return exif.tobytes()
    except DECODING_ERRORS as error:
        _left_out(path, image, error)
        return None
