"""Pictures into and out of the server, and what they must show."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.comfyui.server import ComfyServer, Run
from upsr_core import load_pipeline


def put_image(server: ComfyServer, name: str, image: torch.Tensor) -> torch.Tensor:
    """Write an IMAGE of one frame as a PNG into the server's input folder; what a reader of it sees."""
    levels = (image[0] * 255).round().byte().numpy()
    Image.fromarray(levels).save(server.base / "input" / name)
    return torch.from_numpy(levels).float()[None] / 255


def saved_pictures(server: ComfyServer, run: Run, node_id: str = "4") -> list[np.ndarray]:
    """The pictures of a run that succeeded."""
    assert run.ending == "execution_success", run.events[-3:]
    return [np.asarray(Image.open(path)) for path in server.images(run, node_id)]


def assert_is(picture: np.ndarray, image: torch.Tensor) -> None:
    """``picture`` is an IMAGE's frame (H,W,C), as ComfyUI saves it: cut off to 8 bits, which may show a last digit."""
    expected = (image * 255).clamp(0, 255).byte().numpy()
    assert picture.shape == expected.shape
    difference = np.abs(picture.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def library(image: torch.Tensor, seed: int = 0, **arguments: Any) -> torch.Tensor:
    """What the library makes of an IMAGE with the bundled model, as an IMAGE."""
    lr, generator = image.movedim(-1, 1), torch.Generator().manual_seed(seed)
    return load_pipeline()(lr, generator=generator, output_type="pt", **arguments).images.movedim(1, -1)
