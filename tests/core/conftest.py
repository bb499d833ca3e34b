"""Fixtures of the library's tests: the golden tensors and small pipelines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import build_tiny
from upsr_core import UPSRPipeline
from upsr_core.published.config import build_published
from upsr_core.published.conversion import load_published

DATA = Path(__file__).parents[1] / "data"
# Large outputs in golden.npz hold every third pixel only.
OUTPUT_STRIDE = 3


class Golden:
    """Tensors computed by the published implementation on small random weights."""

    def __init__(self) -> None:
        with np.load(DATA / "golden.npz") as file:
            tensors = {key: torch.from_numpy(file[key]) for key in file.files}
        self.tensors = {k: t.float() if t.dtype == torch.float16 else t for k, t in tensors.items()}
        self.config = json.loads((DATA / "golden_config.json").read_text())

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def weights(self, network: str) -> dict[str, torch.Tensor]:
        prefix = f"weights.{network}."
        return {key.removeprefix(prefix): t for key, t in self.tensors.items() if key.startswith(prefix)}

    def assert_matches(self, output: torch.Tensor, key: str, atol: float = 2e-5) -> None:
        torch.testing.assert_close(output[..., ::OUTPUT_STRIDE, ::OUTPUT_STRIDE], self[key], atol=atol, rtol=0)


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()


@pytest.fixture(scope="session")
def golden_pipe(golden: Golden) -> UPSRPipeline:
    unet, sr_net, scheduler = build_published(golden.config)
    load_published(unet, golden.weights("denoiser"), "golden denoiser")
    load_published(sr_net, golden.weights("sr_net"), "golden sr_net")
    pipe = UPSRPipeline(unet=unet.eval(), sr_net=sr_net.eval(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def golden_files(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The golden weights as published checkpoint files, with the configuration beside them."""
    folder = tmp_path_factory.mktemp("published")
    paths = {name: folder / f"{name}.safetensors" for name in ("denoiser", "sr_net")}
    for name, path in paths.items():
        save_file(golden.weights(name), path)
    return {**paths, "config": DATA / "golden_config.json"}


@pytest.fixture(scope="session")
def tiny_pipe() -> UPSRPipeline:
    return build_tiny()


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipe: UPSRPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipe.save_pretrained(folder)
    return folder


def smooth_image(height: int, width: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    """A photo-like random image (batch,3,height,width) in [0,1]: few large shapes, little fine detail."""
    noise = torch.rand(batch, 3, 6, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
