"""In a real ComfyUI's process: the nodes compute what the library and the command line do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfyui.in_process import ROOT, HostedPack, photo
from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.pixels import quantise
from upsr_core.resampling import lanczos_resize
from upsr_core.uncertainty import heat_map, noise_weight
from upsr_core.upscaling import fill_transparent, upscale_alpha


@pytest.fixture(scope="module")
def pipe() -> UPSRPipeline:
    """The same model, loaded by the library."""
    loaded = load_pipeline()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def upscale(pipe: UPSRPipeline, image: torch.Tensor, seed: int = 0, **arguments: Any) -> torch.Tensor:
    """What the library makes of an IMAGE, as an IMAGE."""
    lr = image[..., :3].movedim(-1, 1)
    return pipe(lr, generator=seeded(seed), output_type="pt", **arguments).images.movedim(1, -1)


def test_estimate_gives_what_the_library_does(pack: HostedPack, model: Any, pipe: UPSRPipeline) -> None:
    image = photo(24, 37)
    mask, heat, sr, weight, _ = pack.estimate(model, image, psi_max=0.05, weight_min=0.3)
    psi, expected_sr = pipe.estimate_uncertainty(image.movedim(-1, 1))
    assert mask.shape == weight.shape == (1, 96, 148)
    assert heat.shape == sr.shape == (1, 96, 148, 3)
    assert torch.equal(sr, expected_sr.movedim(1, -1))
    assert torch.equal(heat, heat_map(psi, 0.05).movedim(1, -1))
    assert torch.equal(mask, (psi / 0.05).clamp(max=1).mean(1))
    assert torch.equal(weight, noise_weight(psi, 0.05, 0.3).mean(1))
    assert 0 <= mask.min() < mask.max() <= 1
    assert 0.3 <= weight.min() < weight.max() <= 1


@pytest.mark.parametrize(
    ("size", "inputs", "arguments"),
    [
        ((32, 45), {}, {}),
        (
            (20, 31),
            {"seed": 7, "steps": 2, "stochasticity": 1.0, "noise_strength": 0.8},
            {"seed": 7, "num_inference_steps": 2, "stochasticity": 1.0, "noise_strength": 0.8},
        ),
        (
            (16, 80),
            {"steps": 1, "tile_size": 32, "tile_overlap": 8},
            {"num_inference_steps": 1, "tile_size": 32, "tile_overlap": 8},
        ),
        (
            (16, 80),
            {"steps": 1, "tile_size": 32, "tile_overlap": 8, "tile_batch_size": 3},
            {"num_inference_steps": 1, "tile_size": 32, "tile_overlap": 8, "tile_batch_size": 3},
        ),
        (
            (16, 80),
            {"steps": 2, "tile_size": 32, "tile_overlap": 8, "adaptive_steps": 0.02},
            {"num_inference_steps": 2, "tile_size": 32, "tile_overlap": 8, "adaptive_steps": 0.02},
        ),
        ((32, 32), {"steps": 1, "color_fix": "wavelet"}, {"num_inference_steps": 1, "color_fix": "wavelet"}),
        ((32, 32), {"steps": 1, "color_fix": "adain"}, {"num_inference_steps": 1, "color_fix": "adain"}),
        ((24, 24), {"steps": 0}, {}),
        ((1, 40), {"steps": 1}, {"num_inference_steps": 1}),
        ((40, 1), {"steps": 1}, {"num_inference_steps": 1}),
        ((1, 1), {"steps": 1}, {"num_inference_steps": 1}),
    ],
)
def test_sample_gives_the_librarys_pixels(
    pack: HostedPack, model: Any, pipe: UPSRPipeline, size: tuple[int, int], inputs: dict, arguments: dict
) -> None:
    image = photo(*size)
    out = pack.sample(model, image, **inputs)
    assert out.shape == (1, 4 * size[0], 4 * size[1], 3)
    assert out.dtype == torch.float32
    assert torch.equal(out, upscale(pipe, image, **arguments))


def test_sample_gives_the_command_lines_pixels(pack: HostedPack, model: Any, tmp_path: Path) -> None:
    # What it reads and writes images with is no requirement of the nodes'.
    from upsr_core.cli.main import main

    levels = (photo(24, 36)[0] * 255).round().byte().numpy()
    Image.fromarray(levels).save(tmp_path / "lr.png")
    assert main(["upscale", str(tmp_path / "lr.png"), "-o", str(tmp_path / "hr.png"), "--seed", "3"]) == 0
    out = pack.sample(model, torch.from_numpy(levels).float()[None] / 255, seed=3)
    saved = np.asarray(Image.open(tmp_path / "hr.png"))
    assert saved.shape == (96, 144, 3)
    assert np.array_equal(saved, quantise(out[0]).byte().numpy())


def test_another_seed_gives_another_image_and_the_global_state_is_left_alone(pack: HostedPack, model: Any) -> None:
    image, state = photo(16, 16), torch.get_rng_state()
    first, second = (pack.sample(model, image, seed=seed, steps=1) for seed in (0, 2**64 - 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_batch_is_its_frames(pack: HostedPack, model: Any, channels: int) -> None:
    frames = photo(17, 22, batch=3, channels=channels)
    out = pack.sample(model, frames, steps=2)
    estimates = pack.estimate(model, frames)
    assert out.shape == (3, 68, 88, channels)
    for index in range(3):
        frame = frames[index : index + 1]
        assert torch.equal(out[index : index + 1], pack.sample(model, frame, steps=2))
        for whole, alone in zip(estimates[:4], pack.estimate(model, frame)[:4], strict=True):
            assert torch.equal(whole[index : index + 1], alone)


def test_transparency(pack: HostedPack, model: Any, pipe: UPSRPipeline) -> None:
    image = photo(24, 24, channels=4)
    image[:, 8:16, 8:16] = 0
    rgb, alpha = image[..., :3].movedim(-1, 1), image[..., 3:].movedim(-1, 1)
    filled = fill_transparent(rgb, alpha)
    assert not torch.equal(filled, rgb)
    out = pack.sample(model, image, steps=1)
    assert torch.equal(out[..., :3], upscale(pipe, filled.movedim(1, -1), num_inference_steps=1))
    assert torch.equal(out[..., 3:].movedim(-1, 1), upscale_alpha(alpha, 4))
    _, heat, sr, _, _ = pack.estimate(model, image)
    assert heat.shape[-1] == 3
    assert torch.equal(sr[..., 3:], out[..., 3:])
    assert torch.equal(sr[..., :3].movedim(-1, 1), pipe.estimate_uncertainty(filled)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_other_types(pack: HostedPack, model: Any, dtype: torch.dtype) -> None:
    image = photo(16, 16).to(dtype)
    out = pack.sample(model, image, steps=1)
    assert out.dtype == torch.float32
    assert torch.equal(out, pack.sample(model, image.float(), steps=1))


def test_gray_is_as_its_three_equal_channels(pack: HostedPack, model: Any) -> None:
    gray = photo(16, 16, channels=1)
    assert torch.equal(pack.sample(model, gray, steps=1), pack.sample(model, gray.expand(-1, -1, -1, 3), steps=1))


def test_values_out_of_range_are_clipped_and_told(
    pack: HostedPack, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    image = photo(16, 16)
    image[0, 0, 0], image[0, 5, 5] = 1.25, -0.5
    with caplog.at_level(logging.WARNING):
        out = pack.sample(model, image, steps=1)
    assert "Image 0 spans -0.500 to 1.250 and was clipped to 0 to 1." in caplog.messages
    assert torch.equal(out, pack.sample(model, image.clamp(0, 1), steps=1))


@pytest.mark.parametrize("node", ["sample", "estimate"])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((1, 8, 8, 3), float("nan")), "image 0 of the batch holds NaN"),
        (torch.zeros(1, 8, 0, 3), "image is empty"),
        (torch.zeros(0, 8, 8, 3), "image is empty"),
        (torch.zeros(1, 8, 8, 5), r"image must be \(batch,height,width,3 or 4 channels\)"),
    ],
)
def test_images_that_are_none(pack: HostedPack, model: Any, node: str, image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(pack, node)(model, image)


def test_an_unedited_noise_weight(pack: HostedPack, model: Any, pipe: UPSRPipeline) -> None:
    """It averages the colours, and is otherwise what the model makes of the uncertainty itself."""
    image = photo(24, 24)
    weight = pack.estimate(model, image)[3]
    psi, _ = pipe.estimate_uncertainty(image.movedim(-1, 1))
    expected = noise_weight(psi, pipe.scheduler.config.psi_max, pipe.scheduler.config.weight_min).mean(1, keepdim=True)
    out = pack.sample(model, image, noise_weight=weight)
    assert torch.equal(out, upscale(pipe, image, noise_weight=expected))
    automatic = pack.sample(model, image)
    assert 0 < (out - automatic).abs().mean() < 0.01


def test_an_edited_noise_weight_takes_the_noise_from_where_it_is_black(pack: HostedPack, model: Any) -> None:
    """Seen by how much of the image depends on the seed."""
    image = photo(32, 64)
    weight = pack.estimate(model, image)[3]
    edited = weight.clone()
    edited[..., 128:] = 0

    def spread(weight: torch.Tensor) -> torch.Tensor:
        first, second = (pack.sample(model, image, seed=seed, noise_weight=weight) for seed in (1, 2))
        return (first - second).abs()[:, :, 144:].mean()

    assert 0 < spread(edited) < 0.3 * spread(weight)


def test_one_mask_for_all_or_one_for_each(pack: HostedPack, model: Any) -> None:
    frames = photo(16, 16, batch=2)
    masks = torch.stack([torch.full((64, 64), 0.4), torch.full((64, 64), 1.0)])
    each = pack.sample(model, frames, steps=1, noise_weight=masks)
    for index in range(2):
        alone = pack.sample(model, frames[index : index + 1], steps=1, noise_weight=masks[index])
        assert torch.equal(each[index], alone[0])
    for_all = pack.sample(model, frames, steps=1, noise_weight=masks[:1])
    assert torch.equal(for_all[0], each[0])
    assert not torch.equal(for_all[1], each[1])
    with pytest.raises(ValueError, match="noise_weight holds 3 masks for 2 images"):
        pack.sample(model, frames, noise_weight=torch.ones(3, 64, 64))


def test_a_noise_weight_of_another_size_is_resized_and_told(
    pack: HostedPack, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    image, small = photo(16, 24), torch.full((1, 16, 24), 0.7)
    with caplog.at_level(logging.WARNING):
        out = pack.sample(model, image, steps=1, noise_weight=small)
    assert "The noise weight is 24x16 and was resized to the output's 96x64." in caplog.messages
    full = pack.sample(model, image, steps=1, noise_weight=torch.full((1, 64, 96), 0.7))
    torch.testing.assert_close(out, full, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [3, 4])
def test_what_estimate_has_computed_is_not_computed_again(pack: HostedPack, model: Any, channels: int) -> None:
    frames = photo(17, 22, batch=2, channels=channels)
    expected = pack.sample(model, frames, steps=2)
    sr = pack.estimate(model, frames)[4]
    calls: list[int] = []
    hook = model.pipe.sr_net.register_forward_hook(lambda *_: calls.append(1))
    try:
        assert torch.equal(pack.sample(model, frames, steps=2, sr=sr), expected)
        assert not calls
        assert torch.equal(pack.sample(model, frames.clone(), steps=2, sr=sr), expected), "the image counts, no object"
    finally:
        hook.remove()


def test_results_of_another_image_or_model_are_refused(pack: HostedPack, model: Any) -> None:
    image = photo(16, 16)
    sr = pack.estimate(model, image)[4]
    for other in (photo(16, 16, seed=1), photo(16, 16, batch=2), photo(16, 20)):
        with pytest.raises(ValueError, match="sr is of another image; connect both nodes to the same image"):
            pack.sample(model, other, sr=sr)
    with pytest.raises(ValueError, match="sr is of another model; connect both nodes to the same Load UPSR"):
        pack.sample(pack.load(), image, sr=sr)


def test_the_example_photo(pack: HostedPack) -> None:
    (image,) = pack.run("UPSRExamplePhoto")
    with Image.open(ROOT / "examples" / "chelsea_lr.png") as saved:
        levels = np.asarray(saved.convert("RGB"))
    assert image.shape == (1, 75, 112, 3)
    assert np.array_equal((image[0] * 255).round().byte().numpy(), levels)


def test_output_scale(pack: HostedPack, model: Any) -> None:
    image = photo(17, 22, channels=4)
    whole = pack.sample(model, image, steps=1)
    for scale, size in ((2.0, (34, 44)), (0.1, (2, 2)), (3.3, (56, 73)), (6.0, (102, 132))):
        out = pack.sample(model, image, steps=1, output_scale=scale)
        assert out.shape == (1, *size, 4)
        assert torch.equal(out, lanczos_resize(whole.movedim(-1, 1), *size).movedim(1, -1))
    with pytest.raises(ValueError, match="output_scale 20 must be above 0 and at most 16"):
        pack.sample(model, image, output_scale=20.0)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"color_fix": "histogram"}, "color_fix must be one of none, wavelet, adain, not 'histogram'"),
        ({"tile_size": 32, "tile_overlap": 32}, "tile_overlap 32 must be smaller than tile_size 32"),
        ({"noise_weight": torch.full((1, 256, 256), -1.0)}, "noise_weight must be from 0 to 100 everywhere"),
    ],
)
def test_settings_that_cannot_be(pack: HostedPack, model: Any, inputs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack.sample(model, photo(64, 64), **inputs)
