"""The model that comes with the package does what the README says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from benchmarks.tiling import border_gradient
from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.evaluation.metrics import colour_shift, fine_detail, grid_excess, psnr
from upsr_core.images.files import read_image
from upsr_core.loading import BUNDLED_MODEL
from upsr_core.resampling import upsample

EXAMPLE = Path(__file__).parents[2] / "examples" / "chelsea_lr.png"


@pytest.fixture(scope="module")
def pipe() -> UPSRPipeline:
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def lr() -> torch.Tensor:
    return read_image(EXAMPLE).rgb


def upscale(pipe: UPSRPipeline, lr: torch.Tensor, **options: object) -> torch.Tensor:
    return pipe(lr, generator=torch.Generator().manual_seed(0), output_type="pt", **options).images


def test_it_is_small_and_loads_in_float32() -> None:
    files = [path for path in BUNDLED_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert not any("_name_or_path" in path.read_text() for path in files if path.suffix == ".json")
    loaded = DiffusionPipeline.from_pretrained(BUNDLED_MODEL)
    assert loaded.unet.dtype == loaded.sr_net.dtype == torch.float32


def test_it_restores_a_photo_it_has_not_seen(pipe: UPSRPipeline, lr: torch.Tensor) -> None:
    """The example, reduced once more, so that there is something to compare with."""
    size = tuple(side // 4 * 4 for side in lr.shape[-2:])
    hr = lr[..., : size[0], : size[1]]
    small = torch.nn.functional.interpolate(hr, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)
    _, sr = pipe.estimate_uncertainty(small)
    upscaled, bicubic = upscale(pipe, small), upsample(small, 4).clamp(0, 1)
    assert psnr(sr, hr, 4) > psnr(bicubic, hr, 4) + 0.3
    # Sampled detail is likely, not certain: it costs PSNR.
    assert psnr(upscaled, hr, 4) > psnr(bicubic, hr, 4) - 2
    assert fine_detail(sr) < fine_detail(upscaled) < 1.5 * fine_detail(hr)
    assert colour_shift(upscaled, hr).abs().max() < 2


def test_no_grid_of_lr_pixels(pipe: UPSRPipeline, lr: torch.Tensor) -> None:
    assert grid_excess(upscale(pipe, lr), 4) < 0.5 * grid_excess(upsample(lr, 4), 4)


def test_tiles_do_not_show(pipe: UPSRPipeline, lr: torch.Tensor) -> None:
    part = lr[..., :80]
    tiled, whole = (upscale(pipe, part, tile_size=size) for size in (64, 0))
    assert (tiled - whole).abs().mean() < 1 / 255
    borders = [border_gradient(image, 64, 16, 4) for image in (tiled, whole)]
    assert borders[0] == pytest.approx(borders[1], rel=0.05)


def test_half_precision_is_close(pipe: UPSRPipeline, lr: torch.Tensor) -> None:
    """float16; bfloat16 in test_precision.py."""
    part = lr[..., :32, :32]
    half = load_pipeline(dtype=torch.float16)
    half.set_progress_bar_config(disable=True)
    assert (upscale(half, part) - upscale(pipe, part)).abs().mean() < 3 / 255


def test_fewer_steps_and_one_step(pipe: UPSRPipeline, lr: torch.Tensor) -> None:
    part = lr[..., :64, :64]
    images = [upscale(pipe, part, num_inference_steps=steps) for steps in (1, 2, 5)]
    bicubic = upsample(part, 4)
    # All show the same photo; the model is made for two steps.
    assert all((image - bicubic).abs().mean() < 0.04 for image in images)
    details = [fine_detail(image).item() for image in images]
    assert details[0] < details[1]
