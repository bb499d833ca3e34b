"""Pixels to the bytes of an image file: PNG and TIFF with 8 or 16 bits, JPEG, WebP."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from .exif import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION, descriptive_entries

PNG_COMPRESSION = 6  # zlib's own default
PNG_OPTIONS = {"compress_level": PNG_COMPRESSION}
METRES_PER_INCH = 0.0254
TIFF_STRIP_BYTES = 2**20
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7  # kinds of values in a TIFF


def encode(
    array: np.ndarray,
    file_format: str,
    quality: int,
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """Encode an image.

    Args:
        array: (h,w,c), c = 1 gray, 2 with alpha, 3 RGB, 4 with alpha; uint8, or uint16 for PNG and TIFF.
        file_format: ``"PNG"``, ``"JPEG"``, ``"WEBP"`` or ``"TIFF"``.
        quality: 1..100 of JPEG and WebP.
        exif: EXIF block to keep, beginning ``Exif``.
        icc_profile: colour profile to keep.
        xmp: XMP packet to keep.
        dpi: horizontal and vertical dots per inch, both above 0. PNG holds them in whole dots per metre, JPEG in whole
            dots per inch, WebP not at all.

    Raises:
        OSError, ValueError, OverflowError, struct.error, cv2.error: the format cannot hold it.
    """
    if array.dtype == np.uint16 and array.shape[2] == 2:
        # Formats that no library here writes or reads in 16 bits.
        array = array[..., [0, 0, 0, 1]]
    if file_format == "TIFF":
        return _encode_tiff(array, exif, icc_profile, xmp, dpi)
    if file_format == "PNG":
        data = _encode_png_16(array) if array.dtype == np.uint16 else _by_pillow(array, "PNG", PNG_OPTIONS)
        header_end = 8 + 25  # signature and IHDR
        return data[:header_end] + _png_metadata(exif, icc_profile, xmp, dpi) + data[header_end:]
    options: dict[str, Any] = {"quality": quality, "icc_profile": icc_profile, "exif": exif, "xmp": xmp}
    if file_format == "JPEG":
        options |= {"subsampling": "4:4:4", "dpi": dpi}
    return _by_pillow(array, file_format, options)


def _by_pillow(array: np.ndarray, file_format: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    image.save(buffer, file_format, **{name: value for name, value in options.items() if value is not None})
    return buffer.getvalue()


def _encode_png_16(array: np.ndarray) -> bytes:
    """By OpenCV, since Pillow writes no 16-bit RGB."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    _, encoded = cv2.imencode(".png", array[..., order], [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    return encoded.tobytes()


def _png_metadata(
    exif: bytes | None, icc_profile: bytes | None, xmp: bytes | None, dpi: tuple[float, float] | None
) -> bytes:
    """The chunks that stand between a PNG's header and its pixels."""
    chunks = b""
    if icc_profile:
        chunks += _png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", *(round(side / METRES_PER_INCH) for side in dpi), 1))
    if exif:
        chunks += _png_chunk(b"eXIf", exif[6:])
    if xmp:
        chunks += _png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)  # not compressed, in no language
    return chunks


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _encode_tiff(
    array: np.ndarray,
    exif: bytes | None,
    icc_profile: bytes | None,
    xmp: bytes | None,
    dpi: tuple[float, float] | None,
) -> bytes:
    """Deflated strips of horizontal differences: Pillow writes no 16-bit RGB, OpenCV no EXIF and ICC.

    An EXIF block is a TIFF file without pixels: here it is the beginning of the file, so that all it points to stays
    in place, and a new directory at the end holds its entries beside those of the pixels.
    """
    height, width, channels = array.shape
    data = bytearray(exif[6:] if exif else b"II*\0\0\0\0\0")
    entries = descriptive_entries(exif) if exif else {}
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"

    def append(content: bytes) -> int:
        data.extend(bytes(len(data) % 2))  # everything begins at an even place
        data.extend(content)
        return len(data) - len(content)

    def enter(tag: int, kind: int, values: list[int] | bytes) -> None:
        if isinstance(values, bytes):
            content = values
        else:
            content = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        head = struct.pack(f"{order}HHI", tag, kind, len(values) // (2 if kind == RATIONAL else 1))
        entries[tag] = head + (content.ljust(4, b"\0") if len(content) <= 4 else where(append(content)))

    def where(offset: int) -> bytes:
        return struct.pack(f"{order}I", offset)

    differences = array.astype(array.dtype.newbyteorder(order))
    differences[:, 1:] -= array[:, :-1]
    rows = max(1, TIFF_STRIP_BYTES // differences[0].nbytes)
    strips = [zlib.compress(differences[y : y + rows].tobytes()) for y in range(0, height, rows)]
    offsets = [append(strip) for strip in strips]
    for tag, size in {256: width, 257: height, 278: rows}.items():
        enter(tag, LONG, [size])
    enter(258, SHORT, [8 * array.itemsize] * channels)  # bits per sample
    enter(259, SHORT, [8])  # deflate
    enter(262, SHORT, [1 if channels <= 2 else 2])  # 0 is black, or RGB
    enter(273, LONG, offsets)
    enter(277, SHORT, [channels])  # samples per pixel
    enter(279, LONG, [len(strip) for strip in strips])
    enter(284, SHORT, [1])  # interleaved
    enter(317, SHORT, [2])  # horizontal differences
    if channels in (2, 4):
        enter(338, SHORT, [2])  # the last sample is alpha, not multiplied in
    if icc_profile:
        enter(34675, UNDEFINED, icc_profile)
    if xmp:
        enter(700, BYTE, xmp)
    if dpi:
        for tag, side in zip((X_RESOLUTION, Y_RESOLUTION), dpi, strict=True):
            enter(tag, RATIONAL, [*Fraction(side).limit_denominator(10_000).as_integer_ratio()])
        enter(RESOLUTION_UNIT, SHORT, [2])  # inches
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    struct.pack_into(f"{order}I", data, 4, append(directory + bytes(4)))
    return bytes(data)
