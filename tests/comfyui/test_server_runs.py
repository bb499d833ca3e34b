"""A real server: prompts run over HTTP, followed over the websocket."""

from __future__ import annotations

import io
import json
import shutil
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfyui.in_process import ROOT, photo
from tests.comfyui.pictures import assert_is, library, put_image, saved_pictures
from tests.comfyui.server import ComfyServer
from tests.comfyui.test_server import EXAMPLES
from tests.comfyui.workflows import estimate_prompt, node, to_prompt, upscale_prompt
from upsr_core import load_pipeline
from upsr_core.upscaling import fill_transparent, upscale_alpha


def test_progress_previews_and_the_librarys_pixels(server: ComfyServer, small: torch.Tensor) -> None:
    run = server.run(upscale_prompt("small.png", seed=5))
    (picture,) = saved_pictures(server, run)
    assert_is(picture, library(small, seed=5)[0])
    progress = [(data["value"], data["max"]) for data in run.of("progress") if data["node"] == "3"]
    assert [value for value, _ in progress] == sorted(value for value, _ in progress)
    assert progress[-1] == (3, 3), "one call of g, two of the denoiser"
    states = [data["nodes"]["3"]["value"] for data in run.of("progress_state") if "3" in data["nodes"]]
    assert states[-1] == 3
    assert len(run.previews) == 2
    for metadata, encoded in run.previews:
        assert metadata["display_node_id"] == "3"
        assert Image.open(io.BytesIO(encoded)).size == (512, 341), "96x64, enlarged by ComfyUI"


def test_only_what_changed_runs_again(server: ComfyServer, small: torch.Tensor) -> None:
    prompt = upscale_prompt("small.png", seed=11, steps=1)
    (first,) = saved_pictures(server, server.run(prompt))
    again = server.run(prompt)
    assert again.ending == "execution_success"
    assert set(again.of("execution_cached")[-1]["nodes"]) == set(prompt)
    assert again.ran == set()
    other = server.run(upscale_prompt("small.png", seed=12, steps=1))
    assert other.ran == {"3", "4"}
    (second,) = saved_pictures(server, other)
    assert not np.array_equal(first, second)


def test_a_model_is_loaded_again_when_its_files_change(server: ComfyServer, small: torch.Tensor) -> None:
    folder = server.extra / "changing"
    shutil.copytree(ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4", folder)
    prompt = upscale_prompt("small.png", model="changing", steps=1)
    assert server.run(prompt).ran >= {"2", "3"}
    assert server.run(prompt).ran == set()
    (folder / "unet" / "config.json").touch()
    assert server.run(prompt).ran >= {"2", "3"}
    shutil.rmtree(folder)


def test_cancel_is_quick_and_the_next_run_works(server: ComfyServer, small: torch.Tensor) -> None:
    put_image(server, "wide.png", photo(32, 256))
    interrupted_at: list[int] = []

    def interrupt(kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data["value"] >= 3 and not interrupted_at:
            interrupted_at.append(data["value"])
            assert server.post("/interrupt", {})[0] == 200

    prompt = upscale_prompt("wide.png", image=("5", 0))
    prompt["5"] = node("RepeatImageBatch", image=("1", 0), amount=20)
    run = server.run(prompt, interrupt)
    assert run.ending == "execution_interrupted"
    last = run.of("progress")[-1]
    # Until our answer to the third call arrives, a few more may be done.
    assert last["max"] == 60
    assert last["value"] < 30
    assert len(saved_pictures(server, server.run(upscale_prompt("small.png", seed=21, steps=1)))) == 1


def free(server: ComfyServer, **what: bool) -> None:
    """Free, and leave the server's worker the time to see it: it may take the next prompt first."""
    assert server.post("/free", what)[0] == 200
    time.sleep(1)


def test_free_unloads_and_the_next_run_loads_again(server: ComfyServer, small: torch.Tensor) -> None:
    prompt = upscale_prompt("small.png", seed=31, steps=1)
    (first,) = saved_pictures(server, server.run(prompt))
    for attempt in range(5):
        free(server, unload_models=True)
        loads = server.log.count("Requested to load _Hosted")
        run = server.run(upscale_prompt("small.png", seed=32 + attempt, steps=1))
        assert "2" not in run.ran, "the model itself is cached"
        if server.log.count("Requested to load _Hosted") == loads + 2:
            break
    else:
        pytest.fail("/free has not unloaded the networks")
    for _ in range(5):
        free(server, unload_models=True, free_memory=True)
        run = server.run(prompt)
        if run.ran == set(prompt):
            break
    else:
        pytest.fail("/free has not emptied the cache")
    (second,) = saved_pictures(server, run)
    assert np.array_equal(first, second)


def test_transparency(server: ComfyServer) -> None:
    image = photo(24, 24, channels=4)
    image[:, 8:16, 8:16] = 0
    image = put_image(server, "transparent.png", image)
    prompt = upscale_prompt("transparent.png", steps=1, image=("5", 0))
    prompt["5"] = node("JoinImageWithAlpha", image=("1", 0), alpha=("1", 1))
    (picture,) = saved_pictures(server, server.run(prompt))
    assert picture.shape == (96, 96, 4)
    rgb, alpha = image[..., :3].movedim(-1, 1), image[..., 3:].movedim(-1, 1)
    assert_is(picture[..., 3:], upscale_alpha(alpha, 4).movedim(1, -1)[0])
    filled = fill_transparent(rgb, alpha).movedim(1, -1)
    assert_is(picture[..., :3], library(filled, num_inference_steps=1)[0])


def test_a_batch_is_its_frames(server: ComfyServer, small: torch.Tensor) -> None:
    other = put_image(server, "other.png", photo(16, 24, seed=1))
    prompt = upscale_prompt("small.png", steps=2, image=("6", 0))
    prompt["5"] = node("LoadImage", image="other.png")
    prompt["6"] = node("ImageBatch", image1=("1", 0), image2=("5", 0))
    pictures = saved_pictures(server, server.run(prompt))
    assert len(pictures) == 2
    for picture, frame in zip(pictures, (small, other), strict=True):
        assert_is(picture, library(frame, num_inference_steps=2)[0])


@pytest.mark.parametrize("size", [(23, 37), (40, 1), (1, 1)])
def test_odd_sizes(server: ComfyServer, size: tuple[int, int]) -> None:
    name = f"{size[0]}x{size[1]}.png"
    image = put_image(server, name, photo(*size))
    (picture,) = saved_pictures(server, server.run(upscale_prompt(name, steps=1)))
    assert_is(picture, library(image, num_inference_steps=1)[0])


def test_the_uncertainty_is_seen_and_edited(server: ComfyServer, small: torch.Tensor) -> None:
    run = server.run(estimate_prompt(node("InvertMask", mask=("5", 3))))
    assert [picture.shape for key in ("4", "8", "9", "10") for picture in saved_pictures(server, run, key)] == [
        (64, 96, 3)
    ] * 4
    (plain,) = saved_pictures(server, server.run(upscale_prompt("small.png", steps=1)))
    assert not np.array_equal(saved_pictures(server, run)[0], plain)
    psi, sr = load_pipeline().estimate_uncertainty(small.movedim(-1, 1))
    assert_is(saved_pictures(server, run, "8")[0], (psi / 0.1).clamp(max=1).mean(1)[0, ..., None].expand(-1, -1, 3))
    assert_is(saved_pictures(server, run, "10")[0], sr.movedim(1, -1)[0])


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_workflows_run(server: ComfyServer, name: str) -> None:
    workflow = json.loads((server.pack / "example_workflows" / f"{name}.json").read_text())
    run = server.run(to_prompt(workflow, server.get("/object_info")))
    assert run.ending == "execution_success", run.events[-3:]
    shown = [key for key, output in server.outputs(run).items() if output.get("images")]
    assert shown
    for key in shown:
        for picture in saved_pictures(server, run, key):
            assert picture.std() > 0, f"node {key} shows a plain colour"
