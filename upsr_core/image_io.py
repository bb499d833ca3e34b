"""Image files to tensors and back: 8 and 16 bits, gray, alpha, EXIF, ICC. Files appear whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import secrets
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms

from .uncertainty import upsample

READ_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
WRITE_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # what libjpeg and libwebp take
PNG_COMPRESSION = 6  # zlib's own default
TIFF_STRIP_BYTES = 2**20

_ORIENTATION, _EXIF_IFD, _EXIF_WIDTH, _EXIF_HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_BITS_PER_SAMPLE, _PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _ICC_PROFILE = 258, 262, 338, 339, 34675
# A TIFF's own first directory mixes these with the layout of its pixels, which must not go into another file:
# description, make, model, orientation, resolution, software, date, artist, copyright, EXIF, GPS.
_DESCRIPTIVE_TAGS = {270, 271, 272, 274, 282, 283, 296, 305, 306, 315, 33432, _EXIF_IFD, 34853}
# What Pillow raises on damaged files, by format and place of the damage.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
                    struct.error, zlib.error, MemoryError)  # fmt: skip
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


class ImageFileError(ValueError):
    """A file that cannot be read or written; one line that names it and says what to do."""


@dataclass(frozen=True)
class DecodedImage:
    """What an image file holds, upright.

    Attributes:
        rgb: float32 (1,3,h,w) in [0,1]; gray images have three equal channels.
        alpha: float32 (1,1,h,w) in [0,1], 0 transparent, not multiplied into ``rgb``; None where there is none.
        bit_depth: 8 or 16 bits a channel.
        grayscale: whether the file is gray, and is to be written so.
        exif: EXIF block with orientation 1, beginning ``Exif``, or None.
        icc_profile: ICC colour profile of the pixels, or None.
        format: ``"PNG"``, ``"JPEG"``, ``"WEBP"``, ``"TIFF"``, ``"BMP"`` or ``"GIF"``.
    """

    rgb: torch.Tensor
    alpha: torch.Tensor | None = None
    bit_depth: int = 8
    grayscale: bool = False
    exif: bytes | None = None
    icc_profile: bytes | None = None
    format: str = "PNG"


def quantise(image: torch.Tensor, maximum: int) -> torch.Tensor:
    """[0,1] to whole levels 0..maximum as files hold them: rounded half up, clipped. Same shape and float type."""
    return (image * maximum + 0.5).floor().clamp(0, maximum)


def read_image(path: str | Path) -> DecodedImage:
    """Read PNG, JPEG, WebP, TIFF, BMP or GIF.

    EXIF orientation is applied. Of several frames or pages the first is taken, and CMYK is converted to sRGB, both
    with a warning.

    Raises:
        ImageFileError: the file is missing, damaged, no image, or larger than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    path = Path(path)
    data = _read_bytes(path)
    image = _open(path, data)
    stored_orientation = _exif(path, image).get(_ORIENTATION, 1)
    sixteen_bit = _has_16_bits(path, image, data)
    try:
        image.load()
        # Pillow turns TIFFs upright while loading, and takes the orientation out; other formats it leaves alone.
        orientation = _exif(path, image).get(_ORIENTATION, 1)
        array = None if sixteen_bit else _pixels_8(path, image, data)
    except _DECODING_ERRORS as error:
        raise _damaged(path, error) from error
    if array is None:
        array, orientation = _pixels_16(path, image, data), stored_orientation
    array = np.ascontiguousarray(_UPRIGHT.get(orientation, _UPRIGHT[1])(array))
    pixels = torch.from_numpy(array.astype(np.float32) / np.iinfo(array.dtype).max).permute(2, 0, 1)[None].contiguous()
    channels = pixels.shape[1]
    colours = 1 if channels <= 2 else 3
    icc_profile = image.info.get("icc_profile") or None
    return DecodedImage(
        rgb=pixels[:, :colours].expand(-1, 3, -1, -1).contiguous(),
        alpha=pixels[:, colours:].contiguous() if channels in (2, 4) else None,
        bit_depth=16 if sixteen_bit else 8,
        grayscale=colours == 1,
        exif=_kept_exif(path, image),
        # The conversion to sRGB leaves a CMYK profile without a meaning.
        icc_profile=None if image.mode == "CMYK" else icc_profile,
        format="JPEG" if image.format == "MPO" else str(image.format),
    )


def check_output(path: str | Path, height: int, width: int, has_alpha: bool) -> str:
    """Check, before long work, that `write_image` can write such an image there.

    Args:
        path: file to write.
        height, width: its size in pixels.
        has_alpha: whether it has transparency that is not to be flattened.

    Returns:
        The format by the suffix: ``"PNG"``, ``"JPEG"``, ``"WEBP"`` or ``"TIFF"``.

    Raises:
        ImageFileError: unknown suffix, no such folder, a format without transparency or not made for this size.
    """
    path = Path(path)
    file_format = WRITE_FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise ImageFileError(f"{path}: cannot write files of this kind; end its name in {', '.join(WRITE_FORMATS)}")
    if not path.parent.is_dir():
        raise ImageFileError(f"{path}: no folder {path.parent}; create it first")
    if path.is_dir():
        raise ImageFileError(f"{path}: is a folder; name a file")
    if has_alpha and file_format == "JPEG":
        raise ImageFileError(f"{path}: JPEG has no transparency; write PNG, WebP or TIFF, or give a background colour")
    largest = LARGEST_SIDE.get(file_format)
    if largest is not None and max(height, width) > largest:
        raise ImageFileError(
            f"{path}: {width}x{height} is too large for {file_format}, at most {largest} a side; write PNG or TIFF"
        )
    return file_format


def write_image(
    path: str | Path,
    image: DecodedImage,
    *,
    quality: int = 95,
    bit_depth: int | None = None,
    background: tuple[float, float, float] | None = None,
) -> None:
    """Write PNG, JPEG, WebP or TIFF, as the suffix of ``path`` says; an existing file is replaced when all is written.

    Values are rounded half up and clipped. Gray images are written gray (by their luma, BT.601) where the format
    can; EXIF and ICC profile are kept.

    Args:
        path: file to write, in an existing folder.
        image: ``format`` is not read.
        quality: 1..100 of JPEG and WebP.
        bit_depth: 8 or 16, by default the image's own; JPEG and WebP hold 8, and warn of what they lose.
        background: RGB in [0,1] to put behind transparent pixels; the file then has no transparency.

    Raises:
        ImageFileError: see `check_output`; or the place is full, read-only or forbidden. Nothing is left behind.
        ValueError: for another argument out of its range or shape.
    """
    path = Path(path)
    _check_image(image)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1..100, not {quality}")
    if bit_depth not in (None, 8, 16):
        raise ValueError(f"bit_depth must be 8 or 16, not {bit_depth}")
    rgb, alpha, gray = image.rgb.cpu().float(), image.alpha, image.grayscale
    file_format = check_output(path, rgb.shape[2], rgb.shape[3], alpha is not None and background is None)
    if alpha is not None:
        alpha = alpha.cpu().float()
        if background is not None:
            colour = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1)
            rgb, alpha, gray = colour + alpha * (rgb - colour), None, gray and len(set(background)) == 1
    depth = bit_depth or image.bit_depth
    if file_format in ("JPEG", "WEBP") and depth == 16:
        warnings.warn(f"{path}: {file_format} holds 8 bits a channel, 16 were to write; PNG or TIFF keep them",
                      stacklevel=2)  # fmt: skip
        depth = 8
    gray = gray and file_format != "WEBP"
    colours = (rgb * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) if gray else rgb
    values = torch.cat([colours] if alpha is None else [colours, alpha], dim=1)[0].permute(1, 2, 0)
    array = quantise(values, 2**depth - 1).numpy().astype(np.uint8 if depth == 8 else np.uint16)
    try:
        encoded = _encode(array, file_format, quality, _sized_exif(image.exif, array), _fitting_icc(path, image, gray))
    except (OSError, ValueError, OverflowError, struct.error, cv2.error) as error:
        raise ImageFileError(f"{path}: cannot be encoded as {file_format} ({_one_line(error)})") from error
    _write_whole(path, encoded)


def fill_transparent(rgb: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Give fully transparent pixels the colours of the visible ones around them.

    What is stored under alpha 0 is often black; upscaled as it is, it would show as a dark fringe. Missing colours
    come from the finest level of an image pyramid, averaged with alpha as weight, that has one there.

    Args:
        rgb: (B,3,h,w).
        alpha: (B,1,h,w) in [0,1].

    Returns:
        (B,3,h,w), equal to ``rgb`` wherever alpha is above 0, and where the whole image is transparent.
    """
    weight, colour = alpha, rgb
    levels = []
    while max(weight.shape[-2:]) > 1:
        levels.append((colour, weight))
        sums = F.avg_pool2d(torch.cat([colour * weight, weight], 1), 2, ceil_mode=True)
        weight = sums[:, 3:]
        colour = torch.where(weight > 0, sums[:, :3] / weight.clamp(min=torch.finfo(weight.dtype).tiny), 0)
    filled = torch.where(weight > 0, colour, F.adaptive_avg_pool2d(rgb, 1))
    for colour, weight in reversed(levels):
        coarse = F.interpolate(filled, size=weight.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, colour, coarse)
    return torch.where((alpha > 0).any(dim=(1, 2, 3), keepdim=True), filled, rgb)


def upscale_alpha(alpha: torch.Tensor, scale: int) -> torch.Tensor:
    """Bicubic alpha for the upscaled image: (B,1,h,w) in [0,1] -> (B,1,scale*h,scale*w), overshoot clipped."""
    return upsample(alpha, scale).clamp(0, 1)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _damaged(path: Path, error: BaseException) -> ImageFileError:
    return ImageFileError(f"{path}: is damaged or incomplete ({_one_line(error)}); get the file again")


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ImageFileError(f"{path}: is a folder; name an image file in it")
    if path.exists() and not path.is_file():
        raise ImageFileError(f"{path}: is not a regular file; name an image file")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise ImageFileError(f"{path}: is empty (0 bytes); get the file again")
    return data


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns from its limit on and refuses at twice of it; nobody sees a warning in time.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(
            f"{path}: has more pixels than PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}, as decompression bombs "
            "do; cut it up, or raise that limit if you trust the file"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageFileError(f"{path}: is not a {', '.join(READ_FORMATS)} image or is damaged; convert it first") from error
    except _DECODING_ERRORS as error:
        raise _damaged(path, error) from error
    # An MPO is a JPEG with further pictures, such as depth, behind the one to show.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        warnings.warn(f"{path}: has {image.n_frames} frames or pages; only the first is read", stacklevel=3)
    return image


def _has_16_bits(path: Path, image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16
    if image.format != "TIFF":
        return False
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = max(tags.get(_BITS_PER_SAMPLE, (1,)))
    sample_format = max(tags.get(_SAMPLE_FORMAT, (1,)))
    if bits not in (1, 2, 4, 8, 16) or sample_format != 1:
        raise ImageFileError(f"{path}: has {bits}-bit or other than unsigned whole numbers; convert it to 8 or 16 bits")
    if bits == 16 and tags.get(_PHOTOMETRIC) not in (1, 2):
        raise ImageFileError(f"{path}: is a 16-bit TIFF neither gray nor RGB; convert it to RGB")
    return bits == 16


def _pixels_8(path: Path, image: Image.Image, data: bytes) -> np.ndarray:
    """(h,w,c) uint8, c = 1 gray, 2 with alpha, 3 RGB, 4 with alpha."""
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    if image.mode == "CMYK":
        warnings.warn(f"{path}: is CMYK; it is converted to sRGB", stacklevel=3)
        image = _cmyk_to_srgb(path, image)
    elif image.mode in ("1", "L", "LA", "La"):
        if image.format == "PNG" and data[24] in (2, 4) and "transparency" in image.info:
            # Pillow scales the pixels to 8 bits, but not the level that is transparent.
            image.info["transparency"] *= 255 // (2 ** data[24] - 1)
        image = image.convert("LA" if transparent else "L")
    elif image.mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        image = image.convert("RGBA" if transparent else "RGB")
    else:
        raise ImageFileError(f"{path}: pixels of kind {image.mode} are not supported; convert it to RGB")
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _cmyk_to_srgb(path: Path, image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        warnings.warn(f"{path}: its CMYK profile is not usable ({_one_line(error)}) and is ignored", stacklevel=4)
        return image.convert("RGB")
    assert converted is not None  # only in-place conversion returns None
    return converted


def _pixels_16(path: Path, image: Image.Image, data: bytes) -> np.ndarray:
    """(h,w,c) uint16 as stored; Pillow would cut RGB down to 8 bits."""
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _damaged(path, error) from error
    if array is None or array.dtype != np.uint16:
        raise ImageFileError(f"{path}: is damaged, or a 16-bit image of a rare kind; save it as 16-bit RGB PNG")
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] >= 3:
        array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    key = image.info.get("transparency")
    if key is not None:
        colours = array[..., : 1 if isinstance(key, int) else 3]
        alpha = np.where((colours == key).all(-1, keepdims=True), 0, 65535).astype(np.uint16)
        return np.concatenate([colours, alpha], axis=2)
    if array.shape[2] == 4:
        if image.format == "TIFF" and image.tag_v2.get(_EXTRA_SAMPLES, (2,))[0] == 1:  # type: ignore[attr-defined]
            colours = array[..., :3] / np.maximum(array[..., 3:], 1) * 65535 + 0.5
            array = np.concatenate([np.minimum(colours, 65535).astype(np.uint16), array[..., 3:]], axis=2)
        if image.format == "PNG" and data[25] == 4:  # gray with alpha, which OpenCV spreads over four channels
            array = array[..., [0, 3]]
    return array


def _exif(path: Path, image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except _DECODING_ERRORS as error:
        warnings.warn(f"{path}: its EXIF data are damaged ({_one_line(error)}) and are left out", stacklevel=3)
        image.info.pop("exif", None)
        return Image.Exif()


def _kept_exif(path: Path, image: Image.Image) -> bytes | None:
    exif = _exif(path, image)
    if image.format == "TIFF":
        for tag in set(exif) - _DESCRIPTIVE_TAGS:
            del exif[tag]
    if not exif:
        return None
    exif[_ORIENTATION] = 1
    try:
        return exif.tobytes()
    except _DECODING_ERRORS as error:
        warnings.warn(f"{path}: its EXIF data are damaged ({_one_line(error)}) and are left out", stacklevel=3)
        return None


def _sized_exif(data: bytes | None, array: np.ndarray) -> Image.Exif:
    """The EXIF block with the size it may name set to that of the pixels (h,w,c)."""
    exif = Image.Exif()
    if data is not None:
        exif.load(data)
        details = exif.get_ifd(_EXIF_IFD)
        details.update({tag: size for tag, size in ((_EXIF_HEIGHT, array.shape[0]), (_EXIF_WIDTH, array.shape[1]))
                        if tag in details})  # fmt: skip
    return exif


def _fitting_icc(path: Path, image: DecodedImage, gray: bool) -> bytes | None:
    if image.icc_profile is not None and image.icc_profile[16:20] == b"GRAY" and not gray:
        warnings.warn(f"{path}: its gray colour profile does not fit RGB pixels and is left out", stacklevel=3)
        return None
    return image.icc_profile


def _check_image(image: DecodedImage) -> None:
    rgb, alpha = image.rgb, image.alpha
    if rgb.ndim != 4 or rgb.shape[:2] != (1, 3) or 0 in rgb.shape:
        raise ValueError(f"image.rgb must be (1,3,h,w), not {tuple(rgb.shape)}")
    if alpha is not None and alpha.shape != (1, 1, *rgb.shape[2:]):
        raise ValueError(f"image.alpha must be (1,1,{rgb.shape[2]},{rgb.shape[3]}), not {tuple(alpha.shape)}")
    if rgb.isnan().any() or (alpha is not None and alpha.isnan().any()):
        raise ValueError("image holds NaN; nothing is written")


def _encode(array: np.ndarray, file_format: str, quality: int, exif: Image.Exif, icc: bytes | None) -> bytes:
    if file_format == "TIFF":
        return _encode_tiff(array, exif, icc)
    if array.dtype == np.uint16:
        return _encode_png_16(array, exif, icc)
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif:
        options["exif"] = exif.tobytes()
    if file_format == "PNG":
        options["compress_level"] = PNG_COMPRESSION
    elif file_format == "JPEG":
        options |= {"quality": quality, "subsampling": "4:4:4", "optimize": True}
    else:
        options["quality"] = quality
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, file_format, **options)
    return buffer.getvalue()


def _encode_png_16(array: np.ndarray, exif: Image.Exif, icc: bytes | None) -> bytes:
    channels = array.shape[2]
    # OpenCV knows no gray with alpha: that is written as RGB with alpha.
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    _, encoded = cv2.imencode(".png", array[..., order], [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    data = encoded.tobytes()
    extra = b""
    if icc:
        extra += _png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if exif:
        extra += _png_chunk(b"eXIf", exif.tobytes()[6:])
    header_end = 8 + 25  # signature and IHDR
    return data[:header_end] + extra + data[header_end:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _encode_tiff(array: np.ndarray, exif: Image.Exif, icc: bytes | None) -> bytes:
    """Baseline TIFF, deflated with horizontal differencing; Pillow writes no 16-bit RGB, OpenCV no ICC and EXIF."""
    height, width, channels = array.shape
    differences = array.astype(array.dtype.newbyteorder("<"))
    differences[:, 1:] -= array[:, :-1]
    rows = max(1, TIFF_STRIP_BYTES // (width * channels * array.itemsize))
    strips = [zlib.compress(differences[y : y + rows].tobytes()) for y in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    offsets = [8 + sum for sum in np.cumsum([0, *sizes]).tolist()]
    layout = {
        256: width, 257: height, _BITS_PER_SAMPLE: (8 * array.itemsize,) * channels, 259: 8, 277: channels, 317: 2,
        _PHOTOMETRIC: 1 if channels <= 2 else 2, 273: tuple(offsets[:-1]), 278: rows, 279: tuple(sizes), 284: 1,
    }  # fmt: skip
    if channels in (2, 4):
        layout[_EXTRA_SAMPLES] = 2
    for tag, value in layout.items():
        exif[tag] = value
    if icc:
        exif[_ICC_PROFILE] = icc
    padding = offsets[-1] % 2  # a directory begins at an even place
    directory = offsets[-1] + padding
    # The EXIF block is a TIFF without pixels, behind 6 bytes of its name and 8 of a TIFF header.
    content = exif.tobytes(offset=directory)[14:]
    return b"II*\0" + struct.pack("<I", directory) + b"".join(strips) + b"\0" * padding + content


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.parent / f".upsr-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space or write elsewhere" if full else "name a file in a folder you may write to"
        raise ImageFileError(f"{path}: cannot be written ({error.strerror}); {remedy}") from error
    finally:
        temporary.unlink(missing_ok=True)
