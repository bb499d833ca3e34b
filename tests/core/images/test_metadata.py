"""XMP packets and resolution; EXIF and ICC are in test_exif_and_icc.py."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from upsr_core.images.files import DecodedImage, read_image, write_image
from upsr_core.images.xmp import resized_packet, upright_packet
from upsr_core.messages import UPSRWarning

XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF><rdf:Description tiff:Orientation="{}" exif:PixelXDimension="{}" dc:creator="Jörg 6">'
    "<tiff:ImageLength>{}</tiff:ImageLength></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
SUFFIXES = [".png", ".jpg", ".webp", ".tif"]


def packet(orientation: int, width: int, height: int) -> bytes:
    return XMP.format(orientation, width, height).encode()


def image_of(depth: int = 8, height: int = 7, width: int = 12, **fields: Any) -> DecodedImage:
    rgb = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return DecodedImage(rgb, bit_depth=depth, **fields)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("depth", [8, 16])
def test_xmp_and_resolution_survive(tmp_path: Path, suffix: str, depth: int) -> None:
    if depth == 16 and suffix in (".jpg", ".webp"):
        pytest.skip("the format has 8 bits")
    path = tmp_path / f"a{suffix}"
    write_image(path, image_of(depth, xmp=packet(1, 3, 2), dpi=(300, 150)))
    image = read_image(path)
    assert image.xmp == packet(1, 12, 7)
    with Image.open(path) as by_pillow:
        assert by_pillow.info["xmp"] == image.xmp
        dpi = by_pillow.info.get("dpi")
    if suffix == ".webp":  # which has no place for it
        assert image.dpi is dpi is None
    else:
        assert image.dpi == pytest.approx((300, 150), abs=0.02)
        assert tuple(map(float, dpi)) == image.dpi


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_pillows_files_keep_both_from_format_to_format(tmp_path: Path, source: str, target: str) -> None:
    options: dict[str, Any] = {"dpi": (72, 72), "xmp": packet(1, 5, 4)}
    if source == ".png":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options["xmp"].decode())
    elif source == ".tif":
        options["tiffinfo"] = {700: options["xmp"]}
    Image.new("RGB", (5, 4)).save(tmp_path / f"a{source}", **options)
    image = read_image(tmp_path / f"a{source}")
    write_image(tmp_path / f"b{target}", image)
    again = read_image(tmp_path / f"b{target}")
    assert again.xmp == packet(1, 5, 4)
    if ".webp" not in (source, target):
        assert again.dpi == pytest.approx((72, 72), abs=0.02)


def test_a_turned_photo_is_not_turned_again_by_its_xmp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"exif": exif, "xmp": packet(6, 12, 7), "dpi": (300, 150)}
    Image.fromarray(np.zeros((7, 12, 3), np.uint8)).save(tmp_path / "a.jpg", **options)
    image = read_image(tmp_path / "a.jpg")
    assert image.rgb.shape[2:] == (12, 7)
    assert image.xmp == packet(1, 12, 7)
    assert image.dpi == (150, 300)
    write_image(tmp_path / "b.jpg", image)
    assert read_image(tmp_path / "b.jpg").xmp == packet(1, 7, 12)


def test_only_whole_properties_are_rewritten() -> None:
    element = b"<tiff:Orientation> 8</tiff:Orientation><my:Orientation>8</my:Orientation>"
    assert upright_packet(element) == element.replace(b"> 8<", b"> 1<")
    assert resized_packet(b"exif:PixelYDimension='4' photo:PixelXDimension=\"9\"", 16, 36) == (
        b"exif:PixelYDimension='16' photo:PixelXDimension=\"9\""
    )
    assert upright_packet(b"no XML \xff\xfe") == b"no XML \xff\xfe"


def test_no_resolution_stays_no_resolution(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    for suffix in (*SUFFIXES, ".bmp", ".gif"):
        options = {"exif": exif} if suffix in (".jpg", ".webp", ".png") else {}
        Image.new("RGB", (5, 4)).save(tmp_path / f"a{suffix}", **options)
        image = read_image(tmp_path / f"a{suffix}")
        assert image.xmp is None
        assert image.dpi is None or suffix == ".bmp"  # Pillow writes 96 into a BMP
        assert (image.exif is not None) == (suffix in (".jpg", ".webp", ".png"))


def test_a_resolution_that_only_exif_holds_is_one_of_the_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 120.0, 120.0, 3  # dots per centimetre
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.dpi == pytest.approx((304.8, 304.8))
    write_image(tmp_path / "b.tif", image)
    with Image.open(tmp_path / "b.tif") as tiff:
        assert tuple(map(float, tiff.info["dpi"])) == pytest.approx((304.8, 304.8))


def test_what_a_jpeg_cannot_hold_is_left_out_with_a_warning(tmp_path: Path) -> None:
    image = image_of(xmp=b"x" * 70_000, exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(70_000))
    with pytest.warns(UPSRWarning) as caught:
        write_image(tmp_path / "a.jpg", image)
    assert [str(warning.message).partition(": ")[2] for warning in caught] == [
        "JPEG holds no EXIF data of 70014 bytes; left out",
        "JPEG holds no XMP packet of 70000 bytes; left out",
    ]
    stored = read_image(tmp_path / "a.jpg")
    assert (stored.exif, stored.xmp) == (None, None)
    write_image(tmp_path / "a.png", image)
    assert read_image(tmp_path / "a.png").xmp == image.xmp


def test_png_chunks_stand_where_the_specification_wants_them(tmp_path: Path) -> None:
    for depth in (8, 16):
        exif = Image.Exif()
        exif[0x010F] = "maker"
        fields = {"exif": exif.tobytes(), "icc_profile": b"p" * 200, "xmp": packet(1, 1, 1), "dpi": (300, 300)}
        write_image(tmp_path / "a.png", image_of(depth, **fields))
        data = io.BytesIO((tmp_path / "a.png").read_bytes()[8:])
        names = []
        while head := data.read(8):
            names.append(head[4:])
            data.seek(int.from_bytes(head[:4], "big") + 4, 1)
        assert names == [b"IHDR", b"iCCP", b"pHYs", b"eXIf", b"iTXt", b"IDAT", b"IEND"]
