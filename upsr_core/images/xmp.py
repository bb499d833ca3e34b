"""XMP packets: kept byte for byte, except for values that turning and upscaling an image make wrong."""

from __future__ import annotations

import re

_ORIENTATION = "tiff:Orientation"
_WIDTHS, _HEIGHTS = ("tiff:ImageWidth", "exif:PixelXDimension"), ("tiff:ImageLength", "exif:PixelYDimension")


def upright_packet(xmp: bytes) -> bytes:
    """The packet with orientation 1 where it names one."""
    return _with_number(xmp, (_ORIENTATION,), 1)


def resized_packet(xmp: bytes, height: int, width: int) -> bytes:
    """The packet with this size in pixels where it names one."""
    return _with_number(_with_number(xmp, _WIDTHS, width), _HEIGHTS, height)


def _with_number(xmp: bytes, properties: tuple[str, ...], value: int) -> bytes:
    """A property is an attribute, ``name="6"``, or an element, ``<name>6</name>``."""
    names = "|".join(properties).encode()
    return re.sub(rb"\b(" + names + rb")(\s*=\s*[\"']\s*|>\s*)\d+", rb"\g<1>\g<2>%d" % value, xmp)
