"""The SR network of plain convolutions, alone and as a pipeline's g."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.tiny import build_tiny
from upsr_core import ConvSRModel, UPSRPipeline, load_pipeline
from upsr_core.memory import free_memory_as
from upsr_core.tile_choice import activation_bytes


@pytest.fixture
def sr_net() -> ConvSRModel:
    """One whose last convolution is not zero."""
    torch.manual_seed(0)
    network = ConvSRModel(channels=8, num_blocks=2)
    torch.nn.init.normal_(network.conv_out.weight, std=0.1)
    return network.eval()


@pytest.fixture
def pipe(sr_net: ConvSRModel) -> UPSRPipeline:
    tiny = build_tiny()
    pipe = UPSRPipeline(unet=tiny.unet, sr_net=sr_net, scheduler=tiny.scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_starts_as_bicubic_at_every_scale_and_size(scale: int) -> None:
    network = ConvSRModel(scale=scale, channels=4, num_blocks=1)
    for size in ((1, 1), (3, 18)):
        lr = torch.rand(2, 3, *size)
        upsampled = torch.nn.functional.interpolate(lr, scale_factor=float(scale), mode="bicubic")
        torch.testing.assert_close(network(lr).sample, upsampled)


def test_sees_as_far_as_it_says(sr_net: ConvSRModel) -> None:
    lr = torch.rand(1, 3, 33, 33, requires_grad=True)
    sr_net(lr).sample[0, :, 64:68, 64:68].sum().backward()
    assert lr.grad is not None
    seen = lr.grad[0].abs().sum(0).nonzero()
    reach = 2 * sr_net.config.num_blocks + 3
    assert (seen.min(0).values.tolist(), seen.max(0).values.tolist()) == ([16 - reach] * 2, [16 + reach] * 2)


def test_in_tiles_where_memory_is_short(pipe: UPSRPipeline) -> None:
    image = torch.rand(1, 3, 208, 208)
    calls: list[tuple[int, int]] = []
    with free_memory_as(lambda _: 2 * activation_bytes(pipe.sr_net, 104**2)):
        tiled = pipe.super_resolve(image, lambda done, total: calls.append((done, total)))
    assert len(calls) > 1
    # Inside the overlap, a tile's share fades out where it sees the zeros beyond its border.
    torch.testing.assert_close(tiled, pipe.super_resolve(image), atol=0.02, rtol=0)


def test_saved_and_loaded_as_any_pipeline(pipe: UPSRPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    image = torch.rand(1, 3, 9, 20)
    expected = pipe(image, 2, generator=torch.Generator().manual_seed(0), output_type="pt").images
    for loaded in (load_pipeline(tmp_path), DiffusionPipeline.from_pretrained(tmp_path)):
        assert type(loaded.sr_net) is ConvSRModel
        found = loaded(image, 2, generator=torch.Generator().manual_seed(0), output_type="pt").images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(sr_net: ConvSRModel, dtype: torch.dtype) -> None:
    lr = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = sr_net(lr).sample
        found = sr_net.to(dtype)(lr.to(dtype)).sample
    assert found.dtype == dtype
    assert (found.float() - expected).abs().mean() < 0.02 * expected.std()


def test_gradient_checkpointing_changes_nothing(sr_net: ConvSRModel) -> None:
    lr = torch.rand(1, 3, 16, 16)
    plain = torch.autograd.grad(sr_net(lr).sample.square().mean(), list(sr_net.parameters()))
    sr_net.enable_gradient_checkpointing()
    checkpointed = torch.autograd.grad(sr_net(lr).sample.square().mean(), list(sr_net.parameters()))
    torch.testing.assert_close(checkpointed, plain)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_blocks must"):
        ConvSRModel(num_blocks=0)
