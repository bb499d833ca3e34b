"""Image files that nobody wants to be sent."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Maker = Callable[[Path], Any]
# More than any test may use.
BOMB_MEGABYTES = 2048


def pixels(height: int = 13, width: int = 20, channels: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def encoded(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A sound little image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels()).convert(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def holding(name: str, data: bytes | Callable[[], bytes]) -> Maker:
    """Writes a file of this content."""
    return lambda folder: (folder / name).write_bytes(data() if callable(data) else data)


def cut(name: str, file_format: str, share: float) -> Maker:
    """Writes the beginning of a file."""

    def make(folder: Path) -> None:
        data = encoded(file_format)
        (folder / name).write_bytes(data[: int(share * len(data))])

    return make


def frames(name: str, **options: Any) -> Maker:
    """Writes three frames or pages."""

    def make(folder: Path) -> None:
        images = [Image.new("RGB", (20, 13), colour) for colour in ("red", "blue", "lime")]
        images[0].save(folder / name, save_all=True, append_images=images[1:], **options)

    return make


def saved(name: str, image: Callable[[], Image.Image], **options: Any) -> Maker:
    """Writes an image as Pillow does."""
    return lambda folder: image().save(folder / name, **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def deflated_zeros(megabytes: int) -> bytes:
    """A zlib stream, a thousandth of what it unpacks to."""
    compressor = zlib.compressobj()
    # After a full flush a block refers to nothing before it, so that it can stand there any number of times.
    head = compressor.compress(b"") + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    checksum = (megabytes * 2**20 % 65521) << 16 | 1  # Adler-32 of zeros
    return head[:2] + block * megabytes + b"\3\0" + struct.pack(">I", checksum)


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, body: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG that says this size, whatever it holds; ``body`` is compressed or not."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", body if body[:1] == b"x" else zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def png_rows(channels: int, depth: int = 8, extra: bytes = b"") -> bytes:
    """A sound PNG of the colour type for so many channels."""
    array = pixels(channels=channels, dtype=np.uint8 if depth == 8 else np.uint16)
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in array)
    return png(20, 13, depth=depth, colour={1: 0, 2: 4, 3: 2, 4: 6}[channels], body=rows, extra=extra)


def png_bomb() -> bytes:
    """Zeros for a far larger picture than the 20x13 that it says."""
    return png(20, 13, body=deflated_zeros(BOMB_MEGABYTES))


def text_bomb() -> bytes:
    """A huge compressed text beside the pixels."""
    return png_rows(3, extra=chunk(b"zTXt", b"Comment\0\0" + deflated_zeros(BOMB_MEGABYTES)))


def profile_bomb() -> bytes:
    """A huge compressed colour profile."""
    return png_rows(3, extra=chunk(b"iCCP", b"ICC\0\0" + deflated_zeros(BOMB_MEGABYTES)))


def tiff(width: int, height: int, *, following: int = 0, offset: int = 8) -> bytes:
    """A gray TIFF of one strip that says this size; ``following`` is where it says that the next page is."""
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
        (278, 4, height), (279, 4, width * height),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value & 0xFFFFFFFF) for tag, kind, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, offset, len(entries)) + directory + struct.pack("<I", following)
    return head.ljust(200, b"\0") + bytes(min(width * height, 10_000))


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP of this size, and a few pixels."""
    head = struct.pack("<2sIHHI", b"BM", 1000, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(946)


def damaged_exif() -> bytes:
    return encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 30)
