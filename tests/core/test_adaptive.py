"""Fewer steps where the uncertainty is low."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.core.conftest import smooth_image
from upsr_core import UPSRPipeline
from upsr_core.adaptive import StepPlan
from upsr_core.resampling import upsample
from upsr_core.tiling import Tiling


def run(pipe: UPSRPipeline, lr: torch.Tensor, **arguments: Any) -> tuple[torch.Tensor, int]:
    """The image, and the tiles that the denoiser ran on in all."""
    tiles = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: tiles.append(len(args[0])))
    generator = torch.Generator().manual_seed(0)
    image = pipe(lr, generator=generator, output_type="pt", **arguments).images
    hook.remove()
    return image, sum(tiles)


def with_uncertainty(lr: torch.Tensor, columns: list[float]) -> torch.Tensor:
    """An image of the SR network whose uncertainty has these values in as many parts, from left to right."""
    upsampled = upsample(2 * lr - 1, 4)
    psi = torch.tensor(columns).repeat_interleave(upsampled.shape[-1] // len(columns))
    return upsampled + 2 * psi


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_an_image_of_one_tile_is_that_of_its_number_of_steps(tiny_pipe: UPSRPipeline, steps: int) -> None:
    lr = smooth_image(16, 16)
    mean = tiny_pipe.estimate_uncertainty(lr)[0].mean().item()
    # Of 5 steps, the least number that is not below this share.
    found, calls = run(tiny_pipe, lr, adaptive_steps=mean * 5 / (steps - 0.5))
    expected, _ = run(tiny_pipe, lr, num_inference_steps=steps)
    assert calls == steps
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_every_tile_gets_the_steps_of_its_own_uncertainty(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(32, 64)
    sr = with_uncertainty(lr, [0.009, 0.029, 0.041, 0.2])
    seen: list[tuple[int, int]] = []
    _, tiles = run(
        tiny_pipe, lr, sr=sr, adaptive_steps=0.05, tile_size=16, tile_overlap=0, tile_batch_size=1,
        callback_on_tile_end=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert tiles == 2 * (1 + 3 + 5 + 5)
    assert seen == [(i + 1, tiles) for i in range(tiles)]
    seen.clear()
    options = {"tile_size": 16, "tile_overlap": 0, "tile_batch_size": 4}
    run(tiny_pipe, lr, sr=sr, adaptive_steps=0.05, callback_on_tile_end=lambda *call: seen.append(call), **options)
    # 8, 6, 4, 6 and 4 tiles in the five steps, four at once.
    assert seen == [(i + 1, 8) for i in range(8)]


def test_a_tile_is_what_it_is_with_as_many_steps_for_all(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(16, 64)
    options = {"sr": with_uncertainty(lr, [0.001, 0.019, 0.2, 0.2]), "tile_size": 16, "tile_overlap": 0}
    found, _ = run(tiny_pipe, lr, adaptive_steps=0.05, **options)
    for steps, columns in ((1, slice(0, 64)), (2, slice(64, 128)), (5, slice(128, 256))):
        expected, _ = run(tiny_pipe, lr, num_inference_steps=steps, **options)
        torch.testing.assert_close(found[..., columns], expected[..., columns], atol=1e-5, rtol=0)


def test_tiles_of_unlike_steps_are_blended(tiny_pipe: UPSRPipeline) -> None:
    """Across the overlap the result goes from one tile's to the other's, and takes no step at its ends."""
    lr = smooth_image(16, 28)
    sr = with_uncertainty(lr, [0.001, 0.2])
    options = {"tile_size": 16, "tile_overlap": 4}
    sr = torch.cat([sr, sr[..., -16:]], dim=-1)  # padded to 32 columns
    found, tiles = run(tiny_pipe, lr, sr=sr, adaptive_steps=0.05, **options)
    every, _ = run(tiny_pipe, lr, sr=sr, **options)
    assert tiles < 15
    difference = (found - every).abs().mean(dim=(0, 1, 2))
    assert difference[:32].mean() > 10 * difference[-32:].mean()
    assert difference.diff().abs().max() < 0.5 * difference.max()


def test_off_unless_asked_for(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(32, 32)
    expected, calls = run(tiny_pipe, lr, tile_size=16, tile_overlap=4)
    found, same_calls = run(tiny_pipe, lr, tile_size=16, tile_overlap=4, adaptive_steps=1e-6)
    assert calls == same_calls
    assert torch.equal(found, expected)


def test_tiles_that_shrink_for_want_of_memory_are_judged_again(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(32, 64)
    options = {"sr": with_uncertainty(lr, [0.001, 0.019, 0.029, 0.2]), "tile_batch_size": 1, "tile_overlap": 4}
    options["adaptive_steps"] = 0.05
    refused = []

    def refuse(module: torch.nn.Module, args: tuple) -> None:
        if args[0].shape[-1] > 16:
            refused.append(args[0].shape)
            raise torch.OutOfMemoryError("CUDA out of memory")

    expected, _ = run(tiny_pipe, lr, tile_size=16, **options)
    hook = tiny_pipe.unet.register_forward_pre_hook(refuse)
    try:
        found, _ = run(tiny_pipe, lr, tile_size=32, **options)
    finally:
        hook.remove()
    assert len(refused) == 1
    torch.testing.assert_close(found, expected)


def test_steps_grow_with_the_uncertainty() -> None:
    psi = torch.zeros(1, 3, 4, 24)
    for i, value in enumerate((0.0, 0.19, 0.21, 0.99, 1.0, 3.0)):
        psi[..., 4 * i : 4 * i + 4] = value / 100
    tiling = Tiling(1, 6, 1, overlap=0, unit=1)
    plan = StepPlan(5, psi, full_at=0.01, scale=4)
    assert [plan.count(*item) for item in tiling.items(1)] == [1, 1, 2, 5, 5, 5]
    ran = [[step for step in range(5) if plan.runs(step, *item)] for item in tiling.items(1)]
    # As UNWScheduler.set_timesteps(2) has it: the noisiest of five, and the third.
    assert ran[:3] == [[0], [0], [0, 2]]
    assert plan.calls_after(-1, 1, tiling) == sum(map(len, ran))
    assert plan.calls_after(1, 1, tiling) == 1 + 3 * 3


@pytest.mark.parametrize("wrong", [0, -0.1, 1.5, float("nan"), float("inf"), "0.1"])
def test_what_is_no_uncertainty_is_refused(tiny_pipe: UPSRPipeline, wrong: object) -> None:
    with pytest.raises(ValueError, match="adaptive_steps must be a number above 0"):
        tiny_pipe(smooth_image(8, 8), adaptive_steps=wrong)
