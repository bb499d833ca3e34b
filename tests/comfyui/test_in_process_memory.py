"""In a real ComfyUI's process: its memory management, cancelling, and what a run does when a tile fails."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.comfyui.in_process import HostedPack, photo


def hosted(pack: HostedPack) -> list[nn.Module]:
    """The networks that ComfyUI holds as loaded."""
    return [loaded.model.model.network for loaded in pack.mm.current_loaded_models]


def test_comfyui_loads_unloads_and_loads_again(pack: HostedPack) -> None:
    pack.mm.unload_all_models()
    model, image = pack.load(), photo(16, 16)
    assert not pack.mm.current_loaded_models
    first = pack.sample(model, image, steps=1)
    assert {id(network) for network in hosted(pack)} == {id(model.pipe.unet), id(model.pipe.sr_net)}
    pack.sample(model, image, steps=1)
    assert len(hosted(pack)) == 2, "loaded once"
    pack.mm.unload_all_models()
    assert not pack.mm.current_loaded_models
    assert torch.equal(pack.sample(model, image, steps=1), first)
    assert len(hosted(pack)) == 2
    pack.mm.unload_all_models()
    pack.estimate(model, image)
    assert len(hosted(pack)) == 2
    device = pack.mm.get_torch_device()
    assert {tensor.device for network in hosted(pack) for tensor in network.parameters()} == {device}


def test_weights_may_be_moved_outside_inference_mode(pack: HostedPack) -> None:
    """As "Unload models" does on an accelerator; a conversion replaces the weights in the same way."""
    model, image = pack.load(), photo(16, 16)
    expected = pack.sample(model, image, steps=1)
    for network in (model.pipe.unet, model.pipe.sr_net):
        network.double()
        network.float()
    assert torch.equal(pack.sample(model, image, steps=1), expected)


def test_nothing_keeps_a_model_that_comfyui_has_dropped(pack: HostedPack) -> None:
    model = pack.load()
    pack.sample(model, photo(16, 16), steps=1)
    networks = [weakref.ref(model.pipe.unet), weakref.ref(model.pipe.sr_net)]
    pack.mm.unload_all_models()
    del model
    gc.collect()
    assert [network() for network in networks] == [None, None]


@pytest.fixture
def progress(pack: HostedPack) -> Iterator[list[tuple[int, int, Any]]]:
    """What ComfyUI is told of the progress: value, total and preview."""
    from comfy.utils import set_progress_bar_global_hook

    told: list[tuple[int, int, Any]] = []
    set_progress_bar_global_hook(lambda value, total, preview, **_: told.append((value, total, preview)))
    yield told
    set_progress_bar_global_hook(None)


def test_progress_and_a_preview_of_every_step(pack: HostedPack, model: Any, progress: list) -> None:
    pack.sample(model, photo(17, 200, batch=2))
    values = [value for value, _, _ in progress]
    assert values == sorted(values)
    assert {total for _, total, _ in progress} == {6}, "two frames of one call of g and two of the denoiser"
    assert values[-1] == 6
    previews = [preview for _, _, preview in progress if preview is not None]
    assert len(previews) == 4
    for kind, picture, side in previews:
        assert (kind, side) == ("JPEG", 512)
        assert picture.size == (512, 44), "800x68, without the padding, made smaller"


@pytest.mark.parametrize("last_call", [1, 2])
def test_a_cancel_takes_effect_within_one_call(pack: HostedPack, model: Any, progress: list, last_call: int) -> None:
    calls = []

    def count(*_: Any) -> None:
        calls.append(1)
        if len(calls) == last_call:
            pack.mm.interrupt_current_processing()

    image, arguments = photo(16, 80), {"tile_size": 32, "tile_overlap": 8}
    expected = pack.sample(model, image, **arguments)
    hooks = [network.register_forward_hook(count) for network in (model.pipe.sr_net, model.pipe.unet)]
    progress.clear()
    try:
        with pytest.raises(pack.mm.InterruptProcessingException):
            pack.sample(model, image, **arguments)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == last_call
    assert max((value for value, _, _ in progress), default=0) == last_call - 1
    assert torch.equal(pack.sample(model, image, **arguments), expected), "and the next run is as ever"


def test_estimate_can_be_cancelled_between_frames(pack: HostedPack, model: Any) -> None:
    pack.mm.interrupt_current_processing()
    with pytest.raises(pack.mm.InterruptProcessingException):
        pack.estimate(model, photo(16, 16, batch=2))
    assert pack.estimate(model, photo(16, 16, batch=2))[0].shape == (2, 64, 64)


def too_large(pixels: int) -> Any:
    """A hook that makes a network behave as on a device that can't hold more than so many LR pixels."""

    def check(module: nn.Module, args: tuple) -> None:
        images, _, height, width = args[0].shape
        if images * height * width > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return check


def test_out_of_memory_goes_on_with_smaller_tiles_and_is_told(
    pack: HostedPack, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    image = photo(64, 64)
    hook = model.pipe.unet.register_forward_pre_hook(too_large(32 * 32))
    try:
        with caplog.at_level(logging.WARNING):
            out = pack.sample(model, image, steps=1)
        told = [message for message in caplog.messages if message.startswith("Out of memory with")]
        assert told
        assert all("going on with" in message for message in told)
    finally:
        hook.remove()
    # Several tiles at once differ from one after the other in the last digits.
    torch.testing.assert_close(out, pack.sample(model, image, steps=1, tile_size=32), atol=1e-3, rtol=0)


def test_out_of_memory_with_the_smallest_tiles_reaches_comfyui_as_such(pack: HostedPack, model: Any) -> None:
    """Which then unloads everything and says what happened."""
    hook = model.pipe.unet.register_forward_pre_hook(too_large(0))
    try:
        with pytest.raises(pack.mm.OOM_EXCEPTION):
            pack.sample(model, photo(16, 16), steps=1)
    finally:
        hook.remove()


def test_nan_in_half_precision_is_computed_again_and_told(pack: HostedPack, caplog: pytest.LogCaptureFixture) -> None:
    """Weights that fit into half precision, with an output that does not."""
    model, image = pack.load(dtype="fp16"), photo(16, 16)
    told = "UPSRUNet gave NaN or infinity in torch.float16; this tile again in float32."
    with torch.no_grad():
        weight = model.pipe.unet.conv_in.weight
        weight.mul_(60_000 / weight.abs().max().item())
    with caplog.at_level(logging.WARNING):
        out = pack.sample(model, image, steps=1)
        assert told in caplog.messages
        caplog.clear()
        model.pipe.unet.float()
        torch.testing.assert_close(out, pack.sample(model, image, steps=1), atol=1e-4, rtol=0)
        assert told not in caplog.messages


def test_weights_that_are_damaged_are_an_error(pack: HostedPack) -> None:
    model = pack.load()
    with torch.no_grad():
        next(model.pipe.unet.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="UPSRUNet gives NaN"):
        pack.sample(model, photo(16, 16))
