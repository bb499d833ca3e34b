"""Colours of the input for the result."""

from __future__ import annotations

import pytest
import torch

from tests.core.conftest import build_tiny, smooth_image
from upsr_core import UNWScheduler, UPSRPipeline
from upsr_core.color_fix import fix_color


def detail(height: int, width: int) -> torch.Tensor:
    return 0.05 * torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_colour_cast_is_taken_away(method: str) -> None:
    reference = smooth_image(128, 96)
    cast = torch.tensor([0.1, -0.05, 0.02])[:, None, None]
    image = reference + detail(128, 96) + cast
    before, after = ((x - reference).mean((0, 2, 3)).abs() for x in (image, fix_color(image, reference, method)))
    assert (before > 0.01).all()
    assert (after < 1e-3).all()


def test_wavelet_keeps_the_detail() -> None:
    reference = smooth_image(128, 96)
    fine = detail(128, 96)
    kept = fix_color(reference + fine + 0.1, reference, "wavelet") - reference
    assert torch.nn.functional.cosine_similarity(kept.flatten(), fine.flatten(), dim=0) > 0.99


def test_the_layout_in_memory_changes_nothing() -> None:
    image, reference = (smooth_image(40, 56, seed=seed, batch=2) for seed in (0, 1))
    expected = fix_color(image, reference, "wavelet")
    last = torch.channels_last
    assert torch.equal(
        fix_color(image.contiguous(memory_format=last), reference.contiguous(memory_format=last), "wavelet"), expected
    )
    assert not torch.equal(expected, image)


def test_wavelet_corrects_a_local_shift_which_adain_cannot() -> None:
    reference = smooth_image(256, 256)
    image = reference.clone()
    image[..., :128] += 0.1
    image[..., 128:] -= 0.1
    inside = (..., slice(32, -32), slice(32, 96))
    wavelet, adain = ((fix_color(image, reference, m) - reference)[inside].abs().mean() for m in ("wavelet", "adain"))
    assert wavelet < 0.01 < adain


def test_adain_takes_the_contrast_too() -> None:
    reference = smooth_image(64, 64)
    fixed = fix_color(0.5 * reference + 0.3, reference, "adain")
    torch.testing.assert_close(fixed, reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["none", "wavelet", "adain"])
@pytest.mark.parametrize("size", [(1, 1), (4, 64)])
def test_small_and_flat_images(method: str, size: tuple[int, int]) -> None:
    flat = torch.full((2, 3, *size), 0.25)
    torch.testing.assert_close(fix_color(flat, flat, method), flat)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_pipeline_applies_it_to_the_image_without_its_padding(tiny_pipe: UPSRPipeline, method: str) -> None:
    lr = smooth_image(20, 24)
    images = [
        tiny_pipe(lr, generator=torch.Generator().manual_seed(0), color_fix=fix, output_type="pt").images
        for fix in ("none", method)
    ]
    reference = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic")
    assert images[1].shape == images[0].shape
    if method == "adain":  # exactly the input's mean, but for what the clipping takes
        torch.testing.assert_close(images[1].mean((2, 3)), reference.mean((2, 3)), atol=5e-3, rtol=0)
    shift = [(image - reference).mean((2, 3)).abs().max() for image in images]
    assert shift[1] < shift[0]


def test_the_model_decides_where_nothing_is_said() -> None:
    pipe = build_tiny()
    pipe.scheduler = UNWScheduler.from_config(pipe.scheduler.config, default_color_fix="wavelet")
    lr = smooth_image(20, 24)
    default, wavelet, none = (
        pipe(lr, generator=torch.Generator().manual_seed(0), color_fix=fix, output_type="pt").images
        for fix in (None, "wavelet", "none")
    )
    assert torch.equal(default, wavelet)
    assert not torch.equal(default, none)
    with pytest.raises(ValueError, match="default_color_fix must be one of none, wavelet, adain, not 'lab'"):
        UNWScheduler(default_color_fix="lab")


def test_unknown_method(tiny_pipe: UPSRPipeline) -> None:
    with pytest.raises(ValueError, match="color_fix must be one of none, wavelet, adain, not 'lab'"):
        tiny_pipe(smooth_image(8, 8), color_fix="lab")
