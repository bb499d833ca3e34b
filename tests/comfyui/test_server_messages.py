"""A real server: what the user is told at a node, without being stopped or with."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfyui.in_process import ROOT
from tests.comfyui.pictures import saved_pictures
from tests.comfyui.server import ComfyServer
from tests.comfyui.workflows import estimate_prompt, node, upscale_prompt


def test_a_resized_noise_weight_is_told_at_the_node(server: ComfyServer, small: torch.Tensor) -> None:
    run = server.run(estimate_prompt(node("SolidMask", value=0.7, width=10, height=20)))
    assert run.ending == "execution_success"
    assert ("3", "The noise weight is 10x20 and was resized to the output's 96x64.") in run.texts


def test_nan_in_half_precision_is_told_at_the_node(server: ComfyServer, small: torch.Tensor) -> None:
    """A model whose weights fit into half precision while their products don't."""
    folder = server.base / "models" / "upsr" / "large"
    shutil.copytree(ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4", folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_in.weight"] *= 60_000 / state["conv_in.weight"].abs().max().item()
    save_file(state, path)
    run = server.run(upscale_prompt("small.png", model="large", dtype="fp16", steps=1))
    assert len(saved_pictures(server, run)) == 1
    assert ("3", "UPSRUNet gave NaN or infinity in torch.float16; this tile again in float32.") in run.texts
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("key", "inputs", "message"),
    [
        ("2", {"model_name": "gone"}, "model 'gone' is not in "),
        ("3", {"steps": 2000}, "bigger than max"),
        ("3", {"color_fix": ["9", 0]}, "9"),
    ],
)
def test_what_is_refused_before_it_runs(
    server: ComfyServer, small: torch.Tensor, key: str, inputs: dict[str, Any], message: str
) -> None:
    prompt = upscale_prompt("small.png")
    prompt[key]["inputs"].update(inputs)
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 400
    assert message in json.dumps(answer)


@pytest.mark.parametrize(
    ("key", "inputs", "message"),
    [
        ("3", {"tile_size": 33}, "tile_size 33 must be a multiple of 32 for this model"),
        ("3", {"steps": 6}, "steps 6 is more than this model's 5; set at most that"),
    ],
)
def test_what_fails_names_the_remedy_at_the_node(
    server: ComfyServer, small: torch.Tensor, key: str, inputs: dict[str, Any], message: str
) -> None:
    prompt = upscale_prompt("small.png")
    prompt[key]["inputs"].update(inputs)
    run = server.run(prompt)
    assert run.ending == "execution_error"
    assert message in run.error
    assert run.of("execution_error")[-1]["node_id"] == key


@pytest.mark.parametrize(
    ("key", "inputs", "message"),
    [
        ("2", {"dtype": "fp64"}, "dtype must be one of auto, fp32, fp16, bf16, not 'fp64'"),
        ("3", {"color_fix": "histogram"}, "color_fix must be one of auto, none, wavelet, adain, not 'histogram'"),
    ],
)
def test_what_a_combo_does_not_have(
    server: ComfyServer, small: torch.Tensor, key: str, inputs: dict[str, Any], message: str
) -> None:
    prompt = upscale_prompt("small.png")
    prompt[key]["inputs"].update(inputs)
    status, answer = server.post("/prompt", {"prompt": prompt})
    if status == 400:  # newer servers look at combos themselves
        assert next(iter(inputs.values())) in json.dumps(answer)
    else:
        run = server.run(prompt)
        assert run.ending == "execution_error"
        assert message in run.error
