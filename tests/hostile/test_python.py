"""Images and options that Python callers pass by mistake."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hostile.image_files import encoded
from tests.hostile.refusals import Row, little_memory, nothing
from upsr_core import UPSRPipeline, load_pipeline

LR = torch.full((1, 3, 9, 9), 0.5)
ARRAY = np.full((9, 9, 3), 0.5, np.float32)
NAN, INF = float("nan"), float("inf")
LAYOUTS = r"must be (h,w,3) or (B,h,w,3)"
RANGE = "must be in [0,1]"
TYPE = "image must be a PIL image, a numpy array, a torch tensor or a list of them, not "


def image(id: str, value: Any, expected: str) -> Row:
    return Row(id, nothing, {"image": value}, expected)


def option(name: str, value: Any, expected: str | None = None) -> Row:
    return Row(f"{name}={str(value)[:20]}", nothing, {name: value}, expected or name)


def cut_photo() -> Image.Image:
    """Opened, but not decoded yet."""
    data = encoded("PNG")
    return Image.open(io.BytesIO(data[: len(data) // 2]))


IMAGES = [
    image("uint16", (ARRAY * 65535).astype(np.uint16), "float in [0,1] or uint8, not torch.uint16"),
    image("int64", np.ones((9, 9, 3), int), "float in [0,1] or uint8, not torch.int64"),
    image("bool", ARRAY > 0, "float in [0,1] or uint8, not torch.bool"),
    image("complex", ARRAY * 1j, "float in [0,1] or uint8, not torch.complex64"),
    image("objects", ARRAY.astype(object), "image"),
    image("text in an array", np.full((9, 9, 3), "a"), "image"),
    image("a structure", np.zeros((9, 9, 3), [("r", "f4")]), "image"),
    image("0 to 255", ARRAY * 255, f"{RANGE} but spans"),
    image("-1 to 1", LR * 4 - 2.5, f"{RANGE} but spans"),
    image("NaN", ARRAY * NAN, f"{RANGE} but holds NaN"),
    image("infinity", ARRAY / 0, RANGE),
    image("channels first", np.zeros((3, 9, 9)), LAYOUTS),
    image("channels last", torch.zeros(1, 9, 9, 3), "must be (3,h,w) or (B,3,h,w)"),
    image("gray", np.zeros((9, 9)), LAYOUTS),
    image("gray with a channel", np.zeros((9, 9, 1)), LAYOUTS),
    image("four channels", np.zeros((9, 9, 4)), LAYOUTS),
    image("five dimensions", np.zeros((1, 1, 9, 9, 3)), LAYOUTS),
    image("a number", np.float32(0.5), TYPE),
    image("no dimensions", np.array(0.5), LAYOUTS),
    image("empty array", np.zeros((0, 9, 3)), "image is empty"),
    image("empty batch", LR[:0], "image is empty"),
    image("empty list", [], "image is an empty list"),
    image("mixed sizes", [ARRAY, ARRAY[1:]], "several sizes (h,w) [(8, 9), (9, 9)]"),
    image("mixed kinds", [ARRAY, "a.png"], TYPE + "str"),
    image("numbers in lists", [[0.5, 0.5]], TYPE + "float"),
    image("nothing", None, TYPE + "NoneType"),
    image("path", Path("a.png"), TYPE),
    image("bytes", b"\x89PNG", TYPE + "bytes"),
    image("transparent", Image.new("RGBA", (9, 9)), "has transparency (mode RGBA)"),
    image("16 bits in PIL", Image.new("I;16", (9, 9)), "more than 8 bits"),
    image("float in PIL", Image.new("F", (9, 9)), "more than 8 bits"),
    image("cut photo in PIL", cut_photo(), "image"),
    image("no pixels in PIL", Image.new("RGB", (0, 9)), "image is empty"),
    image("sparse", LR.to_sparse(), "image"),
    image("on no device", LR.to("meta"), "image"),
]

OPTIONS = [
    *(option("num_inference_steps", value) for value in (NAN, INF, -1, 0, 6, 2.5, "3", [1], 10**30)),
    *(option("stochasticity", value) for value in (NAN, INF, -0.1, 1.1, "1", None, [0.5])),
    *(option("noise_strength", value) for value in (NAN, INF, -1, 1e300, "1", None, [1])),
    *(option("tile_size", value) for value in (NAN, INF, -16, 17, 16.0, "auto", [16])),
    *(option("tile_overlap", value) for value in (NAN, INF, -1, 0.5, "8", None)),
    *(option("tile_batch_size", value) for value in (NAN, INF, -1, 0, 1.5, "2")),
    *(option("adaptive_steps", value) for value in (NAN, INF, -1, 0, 1.5, "0.1")),
    *(option("color_fix", value) for value in ("", "Wavelet", "auto", 7, [])),
    *(option("output_type", value) for value in ("", "latent", None, 7, [])),
    *(option("generator", value) for value in (7, "cpu", [], [torch.Generator()] * 2, [None])),
    option("noise", torch.zeros(1, 3, 36, 36)),
    option("noise", torch.full((1, 3, 64, 64), NAN)),
    option("noise", np.zeros((1, 3, 64, 64), np.float32)),
    option("noise", "gaussian"),
    option("sr", torch.full((1, 3, 64, 64), INF)),
    option("sr", ARRAY),
    *(option(name, torch.full((36, 36), value)) for name in ("noise_mask", "noise_weight") for value in (NAN, INF, -1)),
    *(option(name, torch.full((36, 36), 1e30)) for name in ("noise_mask", "noise_weight")),
    *(option(name, value) for name in ("noise_mask", "noise_weight") for value in ("x", 1.0, np.zeros((9, 9)), [[]])),
    option("callback_on_step_end_tensor_inputs", ["prompt"]),
    option("callback_on_step_end_tensor_inputs", None),
    option("callback_on_step_end", 7),
    option("callback_on_tile_end", 7),
]

LOADS = [
    Row("number as the model", nothing, {"model": 7}, "7: no such model folder"),
    Row("no name", nothing, {"model": ""}, "the model's name is empty"),
    Row("address as the model", nothing, {"model": "https://a.b/c"}, "https://a.b/c: no such model folder"),
    Row("path out of here", nothing, {"model": "../.."}, "../..: no such model folder"),
    Row("type of whole numbers", nothing, {"dtype": torch.int8}, "dtype must be"),
    Row("no type", nothing, {"dtype": "half a float"}, "dtype must be"),
    Row("no device", nothing, {"device": "toaster"}, "device"),
    Row("device not here", nothing, {"device": "cuda:7"}, "device"),
    Row("no text for the variant", nothing, {"variant": 7}, "variant"),
    Row("variant not there", nothing, {"variant": "fp8"}, "fp8"),
]


def refusal(call: Any, arguments: dict[str, Any]) -> str:
    with little_memory(), pytest.raises(ValueError, match=r"\S") as caught:
        call(**arguments)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 900
    return line


@pytest.mark.parametrize("row", [*IMAGES, *OPTIONS], ids=str)
def test_call_is_refused_before_any_work(row: Row, tiny_pipe: UPSRPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_pipe, "_super_resolve", lambda *_, **__: pytest.fail("g ran"))
    assert row.expected in refusal(tiny_pipe, {"image": LR, **row.arguments})


@pytest.mark.parametrize("row", IMAGES[::6], ids=str)
def test_uncertainty_is_refused_as_well(row: Row, tiny_pipe: UPSRPipeline) -> None:
    assert row.expected in refusal(tiny_pipe.estimate_uncertainty, row.arguments)


@pytest.mark.parametrize("row", LOADS, ids=str)
def test_load_is_refused(row: Row) -> None:
    assert row.expected in refusal(load_pipeline, row.arguments)


TAKEN = [
    image("uint8", np.full((9, 9, 3), 128, np.uint8), ""),
    image("uint8 tensor", (LR * 256).byte(), ""),
    image("double", ARRAY.astype(float), ""),
    image("half", LR.half(), ""),
    image("other byte order", ARRAY.astype(">f4"), ""),
    image("strided", np.full((18, 18, 3), 0.5)[::2, ::-2], ""),
    image("read only", np.broadcast_to(np.float32(0.5), (9, 9, 3)), ""),
    image("Fortran's order", np.asfortranarray(ARRAY), ""),
    image("channels last in memory", LR.to(memory_format=torch.channels_last), ""),
    image("with a gradient", LR.clone().requires_grad_(), ""),
    image("palette in PIL", Image.new("P", (9, 9)), ""),
    image("black and white in PIL", Image.new("1", (9, 9)), ""),
    image("one pixel", np.full((1, 1, 3), 0.5), ""),
    image("array and tensor", [ARRAY, LR], ""),
]


@pytest.mark.parametrize("row", TAKEN, ids=str)
def test_taken(row: Row, tiny_pipe: UPSRPipeline) -> None:
    images = tiny_pipe(**row.arguments, num_inference_steps=1, output_type="pt").images
    assert not images.requires_grad
    assert images.isfinite().all()
