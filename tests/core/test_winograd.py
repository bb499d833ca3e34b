"""Winograd's convolutions against direct ones, and the denoiser with them against the published one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.core.conftest import Golden
from upsr_core import UPSRPipeline
from upsr_core.models import winograd as module
from upsr_core.models.image_head import UpsampleConv
from upsr_core.models.winograd import LEAST_CHANNELS, Conv3x3, WinogradConv


def square(channels: int) -> Conv3x3:
    return Conv3x3(channels, channels)


def direct(conv: WinogradConv, x: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = x if isinstance(conv, Conv3x3) else F.interpolate(x, scale_factor=2.0, mode="nearest")
    assert conv.bias is not None
    return F.conv2d(x.to(dtype), conv.weight.to(dtype), conv.bias.to(dtype), padding=1)


@pytest.mark.parametrize("make", [square, UpsampleConv])
@pytest.mark.parametrize("size", [(16, 16), (33, 40), (7, 22), (4, 1)])
@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
@torch.no_grad()
def test_equal_to_the_direct_convolution(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[int], WinogradConv], size: tuple[int, int], rows_at_once: int
) -> None:
    monkeypatch.setattr(module, "LEAST_PART_OF_KERNEL", 0)
    conv, x = make(8), torch.randn(2, 8, *size)
    patches = 2 * -(-size[1] // conv.transform.step)
    monkeypatch.setattr(module, "PART_ELEMENTS", len(conv.transform.inputs) ** 2 * 8 * patches * rows_at_once)
    result, expected = conv.winograd(x), direct(conv, x)
    assert result.shape == expected.shape
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.double(), expected, atol=3e-5, rtol=0)


@torch.no_grad()
def test_different_numbers_of_channels() -> None:
    for channels, features in ((5, 12), (12, 5)):
        conv, x = Conv3x3(channels, features), torch.randn(1, channels, 12, 20)
        torch.testing.assert_close(conv.winograd(x).double(), direct(conv, x), atol=3e-5, rtol=0)


@pytest.mark.parametrize("make", [square, UpsampleConv])
@torch.no_grad()
def test_rounding_errors_are_small_with_many_channels(make: Callable[[int], WinogradConv]) -> None:
    conv, x = make(LEAST_CHANNELS), torch.randn(1, LEAST_CHANNELS, 32, 32)
    assert conv.pays(x)
    result, expected = conv(x), direct(conv, x)
    assert not torch.equal(result, direct(conv, x, torch.float32))  # it went by Winograd
    assert (result.double() - expected).norm() < 1e-5 * expected.norm()


def test_used_where_it_pays_alone() -> None:
    conv, x = Conv3x3(LEAST_CHANNELS, LEAST_CHANNELS), torch.randn(1, LEAST_CHANNELS, 32, 32)
    assert not conv.pays(x)  # gradients are wanted
    with torch.no_grad():
        assert conv.pays(x)
        assert not conv.pays(x[..., :16, :16])
        assert not Conv3x3(LEAST_CHANNELS, 32).pays(x)
        assert not conv.pays(x.bfloat16())
        assert not conv.pays(x.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not conv.pays(x)


def test_the_denoiser_still_matches_the_published_one(
    monkeypatch: pytest.MonkeyPatch, golden: Golden, golden_pipe: UPSRPipeline
) -> None:
    """On the small golden networks it would not pay."""
    monkeypatch.setattr(module, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(module, "LEAST_PATCHES", 1)
    inputs = golden["denoiser.0.sample"], golden["denoiser.0.timestep"], golden["denoiser.0.cond"]
    with torch.no_grad():
        out = golden_pipe.unet(*inputs).sample
    golden.assert_matches(out, "denoiser.0.out")
    assert not torch.equal(out, golden_pipe.unet(*inputs).sample)
