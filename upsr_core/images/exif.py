"""EXIF blocks: kept byte for byte, except for values that turning and upscaling an image make wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

ORIENTATION, WIDTH, HEIGHT = 0x0112, 0xA002, 0xA003
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
_DETAILS, _POSITION = 0x8769, 0x8825
_PREFIX = b"Exif\0\0"
# A TIFF's first directory mixes these with the layout of its pixels, which must not go into another file:
# description, make, model, resolution, software, date, artist, copyright.
_DESCRIPTIVE = {270, 271, 272, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, 305, 306, 315, 33432} | {
    *(ORIENTATION, _DETAILS, _POSITION)
}


def upright_block(image: Image.Image) -> bytes | None:
    """The EXIF block of an opened file, beginning ``Exif``, with orientation 1; None where there is none.

    Raises:
        struct.error, and Pillow's exceptions: the EXIF data are damaged.
    """
    data = image.info.get("exif")
    if data:
        return set_tags(_PREFIX + data.removeprefix(_PREFIX), {ORIENTATION: 1})
    # TIFF, and PNG's older ways to hold EXIF.
    exif = image.getexif()
    _reduce_to_descriptive(exif)
    if not exif:
        return None
    exif[ORIENTATION] = 1
    return exif.tobytes()


def set_tags(block: bytes, values: Mapping[int, int], *, details: bool = True) -> bytes:
    """Set whole-number tags of the image and its details where it has them; the thumbnail is left out.

    Everything else stays where it is: text in any encoding, and makers' notes, which point into the block.

    Args:
        block: EXIF block, or a whole TIFF file, of which the further pages are left out.
        values: by tag.
        details: set them in the directory of the details, too.

    Raises:
        struct.error: the block is damaged.
    """
    data = bytearray(block)
    start = len(_PREFIX) if block.startswith(_PREFIX) else 0
    if data[start : start + 4] not in (b"II*\0", b"MM\0*"):
        raise struct.error("it does not begin as a TIFF")
    order = "<" if data[start : start + 2] == b"II" else ">"

    def set_in_directory(offset: int) -> dict[int, int]:
        """Offsets that the directory's tags point to, and under 0 the offset of its own end."""
        at = start + offset
        (count,) = struct.unpack_from(f"{order}H", data, at)
        pointers = {0: at + 2 + 12 * count}
        for entry in range(at + 2, pointers[0], 12):
            tag, _, _, pointers_to = struct.unpack_from(f"{order}HHII", data, entry)
            pointers[tag] = pointers_to
            if tag in values:
                value = values[tag]
                kind, layout = (3, "HIHxx") if value < 2**16 else (4, "HII")  # SHORT or LONG
                struct.pack_into(f"{order}{layout}", data, entry + 2, kind, 1, value)
        return pointers

    pointers = set_in_directory(struct.unpack_from(f"{order}I", data, start + 4)[0])
    struct.pack_into(f"{order}I", data, pointers[0], 0)  # the thumbnail's directory would follow
    if details and _DETAILS in pointers:
        set_in_directory(pointers[_DETAILS])
    return bytes(data)


def descriptive_entries(block: bytes) -> dict[int, bytes]:
    """Those 12-byte entries of the block's first directory that may stand beside the layout of other pixels."""
    start = len(_PREFIX)
    order = "<" if block[start : start + 2] == b"II" else ">"
    (offset,) = struct.unpack_from(f"{order}I", block, start + 4)
    (count,) = struct.unpack_from(f"{order}H", block, start + offset)
    first = start + offset + 2
    entries = [block[at : at + 12] for at in range(first, first + 12 * count, 12)]
    by_tag = {struct.unpack_from(f"{order}H", entry)[0]: entry for entry in entries}
    return {tag: entry for tag, entry in by_tag.items() if tag in _DESCRIPTIVE}


def _reduce_to_descriptive(exif: Image.Exif) -> None:
    for tag in set(exif) - _DESCRIPTIVE:
        del exif[tag]
    _keep_encoding(exif)
    for tag in {_DETAILS, _POSITION} & set(exif):
        _keep_encoding(exif.get_ifd(tag))


def _keep_encoding(directory: Any) -> None:
    # Pillow reads text as Latin-1 and would write all that is not ASCII as "?".
    for tag, value in list(directory.items()):
        if isinstance(value, str) and not value.isascii():
            directory[tag] = value.encode("latin-1")
