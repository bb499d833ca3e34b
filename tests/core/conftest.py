"""Fixtures of the library's tests: the golden tensors and small pipelines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from upsr_core import ATDModel, UNWScheduler, UPSRPipeline, UPSRUNet
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


TINY_UNET = {
    "image_size": 16,
    "model_channels": 32,
    "channel_mult": (1, 2),
    "num_res_blocks": (1, 1),
    "attention_resolutions": (16, 8),
    "swin_embed_dim": 32,
    "num_feat": 8,
    "shift_mask": "swin",
    "pad_multiple": 16,
}
TINY_ATD = {
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window_size": 8,
    "category_size": 16,
    "num_tokens": 8,
    "reduced_dim": 4,
    "convffn_kernel_size": 3,
}


def build_tiny(scale: int = 4, *, sr_condition: bool = True, seed: int = 0, **unet: object) -> UPSRPipeline:
    """A pipeline with random weights that runs in milliseconds; nothing in it is zero-initialised."""
    args = {"scale": scale, "sr_condition": sr_condition}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = (
            UPSRUNet(**{**TINY_UNET, **args, "global_residual": True, **unet}),
            ATDModel(**TINY_ATD, scale=scale, global_residual=True),
        )
        for network, gain in zip(networks, (1.0, 0.3), strict=True):
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.data.normal_(std=gain * parameter[0].numel() ** -0.5)
    pipe = UPSRPipeline(unet=networks[0].eval(), sr_net=networks[1].eval(), scheduler=UNWScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


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
