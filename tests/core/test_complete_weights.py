"""Networks take all of their weights from the file, or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from upsr_core import ATDModel, UPSRUNet, load_pipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def incomplete(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model folder whose denoiser lacks the weights of its first convolution."""
    folder = tmp_path / "incomplete"
    shutil.copytree(tiny_folder, folder)
    state = load_file(folder / "unet" / WEIGHTS)
    save_file({key: value for key, value in state.items() if not key.startswith("conv_in.")}, folder / "unet" / WEIGHTS)
    return folder


def test_missing_weights_are_named(incomplete: Path) -> None:
    with pytest.raises(ValueError, match=r"2 weights of UPSRUNet are missing \(conv_in.bias, conv_in.weight\)"):
        UPSRUNet.from_pretrained(incomplete / "unet")


@pytest.mark.parametrize("load", [load_pipeline, DiffusionPipeline.from_pretrained])
def test_however_the_model_is_loaded(incomplete: Path, load: object) -> None:
    with pytest.raises(ValueError, match="conv_in"):
        load(incomplete)


def test_loading_info_can_still_be_asked_for(tiny_folder: Path) -> None:
    model, info = ATDModel.from_pretrained(tiny_folder / "sr_net", output_loading_info=True)
    assert isinstance(model, ATDModel)
    assert not info["missing_keys"]
    assert torch.is_tensor(next(model.parameters()))
