"""In a real ComfyUI's process: what a node takes of memory and time, and which limits of ComfyUI's it keeps to."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.comfyui.in_process import HostedPack, photo
from upsr_core.memory import measured_free_bytes

FLOAT = 4
CHANNELS = {"sample": 3, "estimate": 3 + 3 + 1 + 1 + 3}
GIB = 2**30


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most memory that tensors made in the run hold at a time."""
    gc.collect()  # what is freed in the run, but was made before it, would count as less than nothing
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        kept = run()
    del kept
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


@pytest.mark.parametrize("node", ["sample", "estimate"])
def test_another_frame_takes_the_memory_of_its_result_once(pack: HostedPack, model: Any, node: str) -> None:
    arguments = {"steps": 1} if node == "sample" else {}
    few, many = 2, 14
    peaks = [
        peak_bytes(lambda frames=frames: getattr(pack, node)(model, photo(32, 32, batch=frames), **arguments))
        for frames in (few, many)
    ]
    inputs = 3 * 32 * 32 * FLOAT
    result = CHANNELS[node] * 128 * 128 * FLOAT
    # ComfyUI keeps a preview of some frames; a second copy of the results would be twice as much.
    assert (peaks[1] - peaks[0]) / (many - few) < 1.5 * (inputs + result)


@pytest.fixture
def counted(model: Any) -> Iterator[Callable[[str, Callable[[int], None]], list[int]]]:
    """Counts the calls of a network's modules, and tells a listener of each."""
    hooks = []

    def count(network: str, listen: Callable[[int], None]) -> list[int]:
        calls = [0]

        def hook(*_: Any) -> None:
            calls[0] += 1
            listen(calls[0])

        hooks.extend(module.register_forward_pre_hook(hook) for module in getattr(model.pipe, network).modules())
        return calls

    yield count
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(("node", "network"), [("sample", "sr_net"), ("sample", "unet"), ("estimate", "sr_net")])
def test_a_cancel_takes_effect_inside_a_call(
    pack: HostedPack, model: Any, node: str, network: str, counted: Callable
) -> None:
    image, arguments = photo(16, 16), {"steps": 1} if node == "sample" else {}
    middle = [10**9]
    calls = counted(network, lambda call: pack.mm.interrupt_current_processing() if call == middle[0] else None)
    getattr(pack, node)(model, image, **arguments)
    whole = calls[0]
    assert whole > 30, "a look before each module"
    calls[0], middle[0] = 0, whole // 2
    with pytest.raises(pack.mm.InterruptProcessingException):
        getattr(pack, node)(model, image, **arguments)
    assert calls[0] == whole // 2, "no module after the cancel"
    calls[0], middle[0] = 0, 10**9
    getattr(pack, node)(model, image, **arguments)
    assert calls[0] == whole, "and the next run is as ever"


@pytest.mark.parametrize("outcome", ["done", "refused"])
def test_a_node_leaves_the_networks_without_hooks(pack: HostedPack, model: Any, outcome: str) -> None:
    image = photo(16, 16)
    if outcome == "done":
        pack.sample(model, image, steps=1)
    else:
        with pytest.raises(ValueError, match="NaN"):
            pack.sample(model, image * float("nan"), steps=1)
    for network in (model.pipe.unet, model.pipe.sr_net):
        assert not any(module._forward_pre_hooks for module in network.modules())


def test_memory_that_comfyui_reserves_is_not_planned_with(
    pack: HostedPack, model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    image = photo(40, 90)
    tiles = pack.sample(model, image, steps=1, tile_size=32, tile_batch_size=1)
    whole = pack.sample(model, image, steps=1)
    assert not torch.equal(whole, tiles)
    monkeypatch.setattr(pack.mm, "EXTRA_RESERVED_VRAM", measured_free_bytes(torch.device("cpu")))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(pack.sample(model, image, steps=1), tiles)
    assert any(message.startswith("Little memory is free") for message in caplog.messages)


def test_free_memory_of_an_accelerator_is_what_comfyui_says(
    pack: HostedPack, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack.mm, "get_free_memory", lambda device: 5 * GIB)
    monkeypatch.setattr(pack.mm, "EXTRA_RESERVED_VRAM", 2 * GIB)
    free_memory = sys.modules[type(model).__module__].free_memory
    assert free_memory(torch.device("cuda")) == 3 * GIB
    monkeypatch.setattr(pack.mm, "EXTRA_RESERVED_VRAM", 8 * GIB)
    assert free_memory(torch.device("cuda")) == 0


@pytest.mark.parametrize(
    ("fp16", "bf16", "dtype"),
    [(True, True, torch.float16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
@pytest.mark.parametrize("option", ["fp8_e4m3fn_unet", "fp8_e5m2_unet"])
def test_8_bit_weights_become_the_type_that_the_device_computes_in(
    pack: HostedPack, monkeypatch: pytest.MonkeyPatch, option: str, fp16: bool, bf16: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(pack.mm.args, option, True)
    monkeypatch.setattr(pack.mm, "should_use_fp16", lambda *_, **__: fp16)
    monkeypatch.setattr(pack.mm, "should_use_bf16", lambda *_, **__: bf16)
    pipe = pack.load(dtype="auto").pipe
    assert (pipe.unet.dtype, pipe.sr_net.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_near_single(pack: HostedPack, model: Any, dtype: str) -> None:
    image, half = photo(16, 24), pack.load(dtype=dtype)
    assert half.pipe.unet.dtype != torch.float32
    single, out = pack.sample(model, image, steps=2), pack.sample(half, image, steps=2)
    assert out.dtype == torch.float32
    assert 0 < (out - single).abs().mean() < 0.01
    estimates = pack.estimate(half, image)
    assert {estimate.dtype for estimate in estimates[:4]} == {torch.float32}
    assert 0 < (estimates[2] - pack.estimate(model, image)[2]).abs().mean() < 0.01


@pytest.mark.parametrize("state", ["LOW_VRAM", "NO_VRAM"])
def test_little_memory_for_weights(pack: HostedPack, model: Any, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """The road of a graphics card with less memory than the weights need, as far as it can be taken on a CPU."""
    image = photo(16, 16)
    expected = pack.sample(model, image, steps=1)
    pack.mm.unload_all_models()
    budgets = []
    load = pack.mm.LoadedModel.model_load

    def model_load(self: Any, budget: float = 0, *arguments: Any, **named: Any) -> nn.Module:
        budgets.append(budget)
        return load(self, budget, *arguments, **named)

    monkeypatch.setattr(pack.mm.LoadedModel, "model_load", model_load)
    monkeypatch.setattr(pack.mm, "is_device_cpu", lambda _device: False)
    monkeypatch.setattr(pack.mm, "vram_state", pack.mm.VRAMState[state])
    assert torch.equal(pack.sample(model, image, steps=1), expected)
    # 0 is no limit, which is what these networks ask for; --novram leaves nobody a choice.
    assert len(budgets) == 2
    assert all((0 < budget < 1) if state == "NO_VRAM" else budget == 0 for budget in budgets)
