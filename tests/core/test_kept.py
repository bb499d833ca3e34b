"""Layout of weights, and what follows from them: faster, and never out of date."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from tests.core.conftest import smooth_image
from upsr_core import UPSRPipeline, UPSRUNet, load_pipeline
from upsr_core.models.image_head import UpsampleConv
from upsr_core.models.kept import keep_derived


@torch.no_grad()
def test_folded_upsampling_is_nearest_then_convolution() -> None:
    conv, x = UpsampleConv(8), torch.randn(2, 8, 33, 40)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"), conv.weight, conv.bias, padding=1
    )
    torch.testing.assert_close(conv(x), expected)


@torch.no_grad()
def test_kept_tensors_are_used_and_then_forgotten() -> None:
    conv, x = UpsampleConv(8), torch.randn(1, 8, 32, 32)
    with keep_derived(conv):
        before = conv(x)
        conv.weight.mul_(2)
        assert torch.equal(conv(x), before)  # kept
        torch.testing.assert_close(conv.to(torch.float64)(x.double()).float(), conv.double()(x.double()).float())
        conv.float()
    assert not torch.equal(conv(x), before)


def test_changed_weights_change_the_next_run(tiny_pipe: UPSRPipeline) -> None:
    pipe = UPSRPipeline(copy.deepcopy(tiny_pipe.unet), tiny_pipe.sr_net, tiny_pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)

    def run() -> torch.Tensor:
        return pipe(smooth_image(32, 32), generator=torch.Generator().manual_seed(0), output_type="pt").images

    first = run()
    for name, parameter in pipe.unet.named_parameters():
        if "relative_position_bias" in name or "upsample" in name or "resample" in name:
            parameter.data.add_(0.5)
    assert not torch.equal(first, run())


@torch.no_grad()
def test_loaded_networks_are_channels_last_and_can_be_saved(tmp_path: Path) -> None:
    pipe = load_pipeline()
    kernel = pipe.unet.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    pipe.save_pretrained(tmp_path / "model")
    assert pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for name, tensor in UPSRUNet.from_pretrained(tmp_path / "model" / "unet").state_dict().items():
        assert torch.equal(tensor, pipe.unet.state_dict()[name])


@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_pixel_products_are_one_by_one_convolutions(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from upsr_core.models import attention

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layer = attention.PixelConv(12, 20)
        x = torch.randn(2, 12, 5, 7).contiguous(memory_format=torch.channels_last)
        expected = torch.nn.functional.conv2d(x, layer.weight, layer.bias)
        for convolution in (False, True):
            monkeypatch.setattr(attention, "_CONVOLUTION_IS_FASTER", convolution)
            torch.testing.assert_close(layer(x), expected)
    finally:
        torch.set_num_threads(before)
