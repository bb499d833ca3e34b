"""In a real ComfyUI's process: what the nodes offer is what the library takes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from tests.comfyui.in_process import HostedPack, photo
from upsr_core import UNWScheduler, UPSRPipeline, UPSRUNet
from upsr_core.choices import COLOR_FIXES, DTYPES

# The node's names for arguments of the library.
OTHER_NAMES = {"steps": "num_inference_steps", "seed": "generator", "upsr_model": "self"}
# Of `upsr_core.upscaling.upscale`, not of the pipeline.
BESIDE_THE_PIPELINE = {"output_scale"}
# What the node sets by itself, and what masks do in ComfyUI.
NOT_OFFERED = {
    *("output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    *("callback_on_tile_end", "noise", "noise_mask"),
}
# 0 stands for the library's None, which is "as the model or the memory has it".
ZERO_IS_NONE = {"steps", "tile_size", "tile_batch_size", "adaptive_steps"}
DEPENDS_ON_THE_MODEL = {("steps", "max")}


def widgets(pack: HostedPack, node_id: str) -> dict[str, Any]:
    """The schema's inputs by their ids."""
    return {item.id: item for item in pack.classes[node_id].GET_SCHEMA().inputs}


def limits(pack: HostedPack) -> list[tuple[str, str, float]]:
    """Every number of UPSR Sample with both its ends."""
    numbers = [item for item in widgets(pack, "UPSRSample").values() if getattr(item, "max", None) is not None]
    return [(item.id, end, getattr(item, end)) for item in numbers for end in ("min", "max")]


def test_every_argument_of_the_pipeline_is_offered_or_left_out_on_purpose(pack: HostedPack) -> None:
    arguments = set(inspect.signature(UPSRPipeline.__call__).parameters)
    offered = {OTHER_NAMES.get(name, name) for name in widgets(pack, "UPSRSample")} - BESIDE_THE_PIPELINE
    assert offered | NOT_OFFERED == arguments
    assert not offered & NOT_OFFERED


def test_defaults_are_the_librarys(pack: HostedPack) -> None:
    arguments = inspect.signature(UPSRPipeline.__call__).parameters
    for name, item in widgets(pack, "UPSRSample").items():
        default = getattr(item, "default", None)
        if default is None or name in ("seed", *BESIDE_THE_PIPELINE):
            continue
        expected = arguments[OTHER_NAMES.get(name, name)].default
        own = {**dict.fromkeys(ZERO_IS_NONE, 0), "flat_threshold": -1.0, "color_fix": "auto"}
        is_models_own = name in own and default == own[name]
        assert (None if is_models_own else default) == expected, name
    config = UNWScheduler().config
    for name, item in widgets(pack, "EstimateUncertainty").items():
        if getattr(item, "default", None) is not None:
            assert item.default == config[name], name


def test_choices_are_the_librarys(pack: HostedPack) -> None:
    assert tuple(widgets(pack, "UPSRSample")["color_fix"].options) == ("auto", *COLOR_FIXES)
    loaded = {choice: pack.load(dtype=choice).pipe.dtype for choice in widgets(pack, "LoadUPSR")["dtype"].options}
    loaded.pop("auto")
    assert {str(dtype).removeprefix("torch.") for dtype in loaded.values()} == set(DTYPES) - {"auto"}


def test_both_ends_of_every_widget_are_accepted(pack: HostedPack, model: Any) -> None:
    ends = limits(pack)
    assert len(ends) == 20
    for name, end, value in ends:
        if (name, end) not in DEPENDS_ON_THE_MODEL:
            out = pack.sample(model, photo(8, 8), **{"steps": 1, name: value})
            assert out.isfinite().all(), (name, end)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"steps": 6}, "steps 6 is more than this model's 5; set at most that, or 0 for its own"),
        (
            {"tile_size": 33},
            "tile_size 33 must be a multiple of 32 for this model; set 64, or 0 for tiles as large as the memory",
        ),
        ({"output_scale": 16.5}, "output_scale 16.5 must be above 0 and at most 16"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_it_is_moved(
    pack: HostedPack, model: Any, inputs: dict, message: str
) -> None:
    pack.mm.unload_all_models()
    with pytest.raises(ValueError, match=message):
        pack.sample(model, photo(8, 8), **inputs)
    assert not pack.mm.current_loaded_models


def test_every_size_of_tiles_that_the_widget_steps_to_suits_both_kinds_of_models(pack: HostedPack, model: Any) -> None:
    item = widgets(pack, "UPSRSample")["tile_size"]
    with torch.device("meta"):
        published = UPSRPipeline(UPSRUNet(), model.pipe.sr_net, model.pipe.scheduler)
    for pipe in (published, model.pipe):
        assert item.step % pipe.tile_multiple == item.min % pipe.tile_multiple == item.max % pipe.tile_multiple == 0
