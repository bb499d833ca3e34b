"""What happens where a tile fails: too little memory, NaN in half precision, a caller who cancels."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tests.core.conftest import smooth_image
from tests.tiny import build_tiny
from upsr_core import UPSRPipeline
from upsr_core.tiling import Tiling


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def limit_memory(network: nn.Module, pixels: int) -> torch.utils.hooks.RemovableHandle:
    """Make ``network`` behave as on a device that can't hold more than so many LR pixels."""

    def check(module: nn.Module, args: tuple) -> None:
        images, _, height, width = args[0].shape
        if images * height * width > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return network.register_forward_pre_hook(check)


@pytest.fixture(autouse=True)
def _warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def test_out_of_memory_goes_on_with_smaller_tiles_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pipe, lr = build_tiny(), smooth_image(64, 64)
    expected = pipe(lr, generator=seeded(0), tile_size=32, tile_overlap=8, tile_batch_size=1, output_type="pt").images
    limit_memory(pipe.unet, 32 * 32)
    images = pipe(lr, generator=seeded(0), tile_overlap=8, output_type="pt").images
    assert torch.equal(images, expected)
    assert "Out of memory with tiles of 64x64 LR pixels; going on with tiles of 32x32 LR pixels." in caplog.text
    assert len(caplog.records) == 1, "the tiles that fit are kept for the steps that follow"


def test_out_of_memory_first_takes_fewer_tiles_at_once(caplog: pytest.LogCaptureFixture) -> None:
    pipe, lr = build_tiny(), smooth_image(64, 64)
    arguments = {"tile_size": 32, "tile_overlap": 8, "output_type": "pt"}
    expected = pipe(lr, generator=seeded(0), tile_batch_size=1, **arguments).images
    limit_memory(pipe.unet, 32 * 32)
    assert torch.equal(pipe(lr, generator=seeded(0), tile_batch_size=4, **arguments).images, expected)
    assert "4 tiles at once of 32x32 LR pixels; going on with tiles of 32x32 LR pixels" in caplog.text


def test_g_gets_smaller_tiles_too(caplog: pytest.LogCaptureFixture) -> None:
    pipe = build_tiny()
    limit_memory(pipe.sr_net, 192 * 96)
    psi, sr = pipe.estimate_uncertainty(smooth_image(96, 384))
    assert sr.shape == psi.shape == (1, 3, 384, 1536)
    assert "going on with tiles of 192x96" in caplog.text


def test_out_of_memory_with_the_smallest_tiles_is_an_error() -> None:
    pipe = build_tiny()
    limit_memory(pipe.unet, 15 * 15)
    with pytest.raises(torch.OutOfMemoryError):
        pipe(smooth_image(64, 64), generator=seeded(0))


def test_other_errors_are_not_taken_for_memory() -> None:
    pipe = build_tiny()
    pipe.unet.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("a broken kernel")))
    with pytest.raises(RuntimeError, match="a broken kernel"):
        pipe(smooth_image(64, 64), generator=seeded(0))


def test_tilings_shrink_to_an_end() -> None:
    tiling: Tiling | None = Tiling(100, 300, 300, overlap=16, unit=32, batch_size=3)
    sizes = []
    while tiling is not None:
        sizes.append((tiling.tile_size, tiling.batch_size))
        tiling = tiling.smaller()
    assert sizes == [(300, 3), (300, 1), (160, 1), (96, 1), (64, 1), (32, 1)]


def test_tiles_are_no_larger_than_their_number_needs() -> None:
    """600x400 under tiles of 512: two of 320 instead of two of 512, most of which would be shared."""
    tiling = Tiling(400, 600, 512, overlap=16, unit=64)
    assert tiling.sides == (400, 320)
    assert [tile.x0 for ((_, tile),) in tiling.chunks(1)] == [0, 280]


def overflowing(network: nn.Module, name: str) -> None:
    """Scale a layer so that its weights fit into float16, and its output does not."""
    layer = network.get_submodule(name)
    with torch.no_grad():
        layer.weight *= 200_000


def test_overflow_in_half_precision_is_computed_again_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    lr = smooth_image(32, 32)
    pipe = build_tiny()
    overflowing(pipe.sr_net, "conv_in")
    pipe.sr_net.half()
    before = {name: parameter.clone() for name, parameter in pipe.sr_net.named_parameters()}
    psi, sr = pipe.estimate_uncertainty(lr)
    assert "float32" in caplog.text
    assert psi.isfinite().all()
    pipe.sr_net.float()
    caplog.clear()
    torch.testing.assert_close(pipe.estimate_uncertainty(lr)[1], sr)
    assert not caplog.text
    pipe.sr_net.half()
    assert all(torch.equal(parameter, before[name]) for name, parameter in pipe.sr_net.named_parameters())


def test_nan_in_float32_is_an_error_that_names_the_network() -> None:
    pipe = build_tiny()
    next(pipe.unet.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="UPSRUNet gives NaN"):
        pipe(smooth_image(16, 16), generator=seeded(0))


def test_callback_sees_every_call_and_may_cancel(tiny_pipe: UPSRPipeline) -> None:
    seen: list[tuple[int, int]] = []
    arguments = {"tile_size": 16, "tile_overlap": 0, "tile_batch_size": 2, "num_inference_steps": 3}
    tiny_pipe(
        smooth_image(32, 32),
        generator=seeded(0),
        callback_on_tile_end=lambda done, total: seen.append((done, total)),
        **arguments,
    )
    assert seen == [(i + 1, 7) for i in range(7)]

    class CancelledError(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise CancelledError

    seen.clear()
    with pytest.raises(CancelledError):
        tiny_pipe(smooth_image(32, 32), generator=seeded(0), callback_on_tile_end=cancel, **arguments)
    assert len(seen) == 3


def test_a_pipeline_works_on_after_an_error(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(16, 16)
    expected = tiny_pipe(lr, generator=seeded(0), output_type="pt").images
    with pytest.raises(KeyError):
        tiny_pipe(lr, generator=seeded(0), callback_on_tile_end=lambda done, total: {}["no such key"])
    assert torch.equal(tiny_pipe(lr, generator=seeded(0), output_type="pt").images, expected)
