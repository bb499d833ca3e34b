"""Pixels to the bytes of an image file: PNG and TIFF with 8 or 16 bits, JPEG, WebP."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from .exif import descriptive_entries

PNG_COMPRESSION = 6  # zlib's own default
TIFF_STRIP_BYTES = 2**20


def encode(array: np.ndarray, file_format: str, quality: int, exif: bytes | None, icc_profile: bytes | None) -> bytes:
    """Encode an image.

    Args:
        array: (h,w,c), c = 1 gray, 2 with alpha, 3 RGB, 4 with alpha; uint8, or uint16 for PNG and TIFF.
        file_format: ``"PNG"``, ``"JPEG"``, ``"WEBP"`` or ``"TIFF"``.
        quality: 1..100 of JPEG and WebP.
        exif: EXIF block to keep, beginning ``Exif``.
        icc_profile: colour profile to keep.

    Raises:
        OSError, ValueError, OverflowError, struct.error, cv2.error: the format cannot hold it.
    """
    if array.dtype == np.uint16 and array.shape[2] == 2:
        # Formats that no library here writes or reads in 16 bits.
        array = array[..., [0, 0, 0, 1]]
    if file_format == "TIFF":
        return _encode_tiff(array, exif, icc_profile)
    if array.dtype == np.uint16:
        return _encode_png_16(array, exif, icc_profile)
    options: dict[str, Any] = {"icc_profile": icc_profile} if icc_profile else {}
    if exif:
        options["exif"] = exif
    if file_format == "PNG":
        options["compress_level"] = PNG_COMPRESSION
    else:
        options["quality"] = quality
    if file_format == "JPEG":
        options["subsampling"] = "4:4:4"
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, file_format, **options)
    return buffer.getvalue()


def _encode_png_16(array: np.ndarray, exif: bytes | None, icc_profile: bytes | None) -> bytes:
    """OpenCV writes the pixels, since Pillow writes no 16-bit RGB, and what OpenCV leaves out is put in."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    _, encoded = cv2.imencode(".png", array[..., order], [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    data = encoded.tobytes()
    extra = b""
    if icc_profile:
        extra += _png_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if exif:
        extra += _png_chunk(b"eXIf", exif[6:])
    header_end = 8 + 25  # signature and IHDR
    return data[:header_end] + extra + data[header_end:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _encode_tiff(array: np.ndarray, exif: bytes | None, icc_profile: bytes | None) -> bytes:
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

    def enter(tag: int, values: list[int] | bytes, long: bool = False) -> None:
        code, kind = ("I", 4) if long else ("H", 3)
        if isinstance(values, bytes):
            content, kind = values, 7
        else:
            content = struct.pack(f"{order}{len(values)}{code}", *values)
        head = struct.pack(f"{order}HHI", tag, kind, len(values))
        entries[tag] = head + (content.ljust(4, b"\0") if len(content) <= 4 else where(append(content)))

    def where(offset: int) -> bytes:
        return struct.pack(f"{order}I", offset)

    differences = array.astype(array.dtype.newbyteorder(order))
    differences[:, 1:] -= array[:, :-1]
    rows = max(1, TIFF_STRIP_BYTES // differences[0].nbytes)
    strips = [zlib.compress(differences[y : y + rows].tobytes()) for y in range(0, height, rows)]
    offsets = [append(strip) for strip in strips]
    for tag, size in {256: width, 257: height, 278: rows}.items():
        enter(tag, [size], long=True)
    enter(258, [8 * array.itemsize] * channels)  # bits per sample
    enter(259, [8])  # deflate
    enter(262, [1 if channels <= 2 else 2])  # 0 is black, or RGB
    enter(273, offsets, long=True)
    enter(277, [channels])  # samples per pixel
    enter(279, [len(strip) for strip in strips], long=True)
    enter(284, [1])  # interleaved
    enter(317, [2])  # horizontal differences
    if channels in (2, 4):
        enter(338, [2])  # the last sample is alpha, not multiplied in
    if icc_profile:
        enter(34675, icc_profile)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    struct.pack_into(f"{order}I", data, 4, append(directory + bytes(4)))
    return bytes(data)
