"""What other nodes may send, and what may lie in the models' folder; as far as the nodes import without ComfyUI."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.hostile.image_files import holding
from tests.hostile.refusals import Row, little_memory, nothing

NAN, INF = float("nan"), float("inf")
IMAGE = torch.full((2, 4, 6, 3), 0.5)


@pytest.fixture(scope="module")
def images(node_module: Callable[[str], ModuleType]) -> ModuleType:
    return node_module("images")


@pytest.fixture(scope="module")
def folders(node_module: Callable[[str], ModuleType]) -> ModuleType:
    return node_module("model_folders")


SHAPE, EMPTY = "image must be (batch,height,width,3 or 4 channels), not ", "image is empty: "
IMAGES = [
    Row("no batch", nothing, IMAGE[0], SHAPE),
    Row("a video", nothing, IMAGE[None], SHAPE),
    Row("channels first", nothing, IMAGE.movedim(-1, 1), SHAPE),
    Row("two channels", nothing, IMAGE[..., :2], SHAPE),
    Row("five channels", nothing, torch.zeros(1, 4, 6, 5), SHAPE),
    Row("a number", nothing, torch.tensor(0.5), SHAPE),
    Row("a mask", nothing, IMAGE[..., 0], SHAPE),
    Row("empty batch", nothing, IMAGE[:0], EMPTY),
    Row("no height", nothing, IMAGE[:, :0], EMPTY),
    Row("no channels", nothing, IMAGE[..., :0], SHAPE),
]
FRAMES = [
    Row(f"{value} in frame 1", nothing, value, "image 1 of the batch holds NaN or infinity; look at the node")
    for value in (NAN, INF, -INF)
]
MASKS = [
    Row("too many masks", nothing, torch.ones(3, 16, 24), "noise_weight holds 3 masks for 2 images"),
    Row("no masks", nothing, torch.ones(0, 16, 24), "noise_weight holds 0 masks for 2 images"),
    Row("a picture", nothing, torch.ones(2, 16, 24, 3), "noise_weight must be masks (batch,height,width), not "),
    Row("a line", nothing, torch.ones(24), "noise_weight must be masks"),
    Row("no height", nothing, torch.ones(1, 0, 24), "noise_weight must be masks"),
]


@pytest.mark.parametrize("row", IMAGES, ids=str)
def test_what_is_no_image_is_refused(row: Row, images: ModuleType) -> None:
    assert row.expected in refusal(images.check_image, row.arguments)


@pytest.mark.parametrize("row", FRAMES, ids=str)
def test_frames_without_values_are_refused(row: Row, images: ModuleType) -> None:
    batch = IMAGE.clone()
    batch[1, 2, 3] = row.arguments
    images.frame_of(batch, 0)
    assert row.expected in refusal(images.frame_of, batch, 1)


@pytest.mark.parametrize("row", MASKS, ids=str)
def test_masks_that_fit_nothing_are_refused(row: Row, images: ModuleType) -> None:
    assert row.expected in refusal(images.frame_weight, row.arguments, 0, 2, 16, 24)


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    with little_memory(), pytest.raises(ValueError, match=r"\S") as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def deep(folder: Path) -> None:
    for _ in range(300):
        folder = folder / "d"
        folder.mkdir()


FOLDERS = [
    Row("missing", lambda f: f.rmdir(), (), ""),
    Row("a file", lambda f: (f.rmdir(), f.write_text("x")), (), ""),
    Row("link to itself", link("loop", "loop"), (), ""),
    Row("link to its parent", link("up", ".."), (), ""),
    Row("broken link", link("model", "nowhere"), (), ""),
    Row("very deep", deep, (), ""),
    Row("index is a folder", lambda f: (f / "m" / "model_index.json").mkdir(parents=True), (), ""),
    Row("checkpoint is a folder", lambda f: (f / "a.pth").mkdir(), (), ""),
    Row("newline", holding("a\n.pth", b"x"), (), "a\n.pth (not a checkpoint of UPSR)"),
    Row("no text", holding(os.fsdecode(b"\xff.pth"), b"x"), (), os.fsdecode(b"\xff.pth (not a checkpoint of UPSR)")),
]


@pytest.mark.parametrize("row", FOLDERS, ids=str)
def test_the_list_of_models_bears_any_folder(row: Row, folders: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "upsr"
    root.mkdir()
    row.make(root)
    names = list(folders.find_models([root]))
    assert names[0].endswith("(bundled)")
    assert names[1:] == ([row.expected] if row.expected else [])
