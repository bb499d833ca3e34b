"""The pipeline: parity end to end, tiling, batches, inputs and outputs, loading and saving."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from tests.core.conftest import Golden, smooth_image
from tests.tiny import build_tiny
from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.memory import free_memory_as
from upsr_core.uncertainty import detail_share


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", [0, 1])
def test_deterministic_sampler_matches_the_published_one(golden: Golden, golden_pipe: UPSRPipeline, case: int) -> None:
    noise = golden[f"e2e.{case}.noise"]
    out = golden_pipe(golden[f"e2e.{case}.lr"], noise=noise, output_type="pt")
    golden.assert_matches(out.images, f"e2e.{case}.ddim_out")


def test_stochastic_sampler_matches_eq_8(golden: Golden, golden_pipe: UPSRPipeline, monkeypatch) -> None:
    fresh = [torch.nn.functional.pixel_shuffle(golden[f"e2e.0.step_noise.{i}"], 4) for i in range(4)]
    monkeypatch.setattr("upsr_core.scheduling_unw.randn_tensor", lambda *args, **kwargs: fresh.pop(0))
    out = golden_pipe(golden["e2e.0.lr"], noise=golden["e2e.0.noise"], stochasticity=1.0, output_type="pt")
    golden.assert_matches(out.images, "e2e.0.ancestral_out")


def test_uncertainty_and_weight_match(golden: Golden, golden_pipe: UPSRPipeline) -> None:
    psi, sr = golden_pipe.estimate_uncertainty(golden["e2e.0.lr"])
    golden.assert_matches(golden_pipe.scheduler.noise_weight(psi), "e2e.0.weight")
    stride = slice(None, None, 3)
    expected = ((golden["e2e.0.sr_pred"] + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(sr[..., stride, stride], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 3), (16, 16), (17, 33), (40, 10)])
def test_any_size_comes_out_exactly_four_times(tiny_pipe: UPSRPipeline, size: tuple[int, int]) -> None:
    height, width = size
    out = tiny_pipe(smooth_image(height, width), generator=seeded(0), output_type="pt")
    assert out.images.shape == out.uncertainty.shape == (1, 3, 4 * height, 4 * width)
    assert out.images.isfinite().all()
    assert out.images.min() >= 0
    assert out.images.max() <= 1


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_other_scales(scale: int) -> None:
    out = build_tiny(scale)(smooth_image(10, 12), generator=seeded(0), output_type="pt")
    assert out.images.shape == (1, 3, 10 * scale, 12 * scale)


def test_without_sr_condition() -> None:
    pipe = build_tiny(sr_condition=False)
    assert pipe(smooth_image(16, 16), generator=seeded(0), output_type="pt").images.shape == (1, 3, 64, 64)


def test_every_input_kind_gives_the_same_image(tiny_pipe: UPSRPipeline) -> None:
    array = (smooth_image(12, 9)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    as_float = array.astype(np.float32) / 255
    inputs = [
        Image.fromarray(array),
        [Image.fromarray(array)],
        array,
        as_float,
        as_float[None],
        torch.from_numpy(array).permute(2, 0, 1),
        torch.from_numpy(as_float).permute(2, 0, 1),
        torch.from_numpy(as_float).permute(2, 0, 1)[None].double(),
    ]
    images = [np.asarray(tiny_pipe(image, generator=seeded(3)).images[0]) for image in inputs]
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


def test_output_types_agree(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(8, 8)
    pil, array, tensor = (
        tiny_pipe(lr, generator=seeded(1), output_type=kind, return_dict=False)[0] for kind in ("pil", "np", "pt")
    )
    np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(np.asarray(pil[0]), np.floor(array[0] * 255 + 0.5))


def test_an_image_does_not_depend_on_its_batch(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(16, 24, batch=3)
    together = tiny_pipe(lr, generator=[seeded(i) for i in range(3)], stochasticity=0.7, output_type="pt").images
    alone = tiny_pipe(lr[1:2], generator=[seeded(1)], stochasticity=0.7, output_type="pt").images
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=0)


def test_untouched_global_random_state(tiny_pipe: UPSRPipeline) -> None:
    before = torch.get_rng_state()
    tiny_pipe(smooth_image(8, 8), generator=seeded(0), stochasticity=1.0)
    assert torch.equal(before, torch.get_rng_state())


def test_one_step_returns_the_first_estimate(tiny_pipe: UPSRPipeline) -> None:
    estimates = []

    def keep(pipe: UPSRPipeline, step: int, t: int, tensors: dict[str, torch.Tensor]) -> dict:
        estimates.append(tensors["pred_original_sample"])
        return {}

    lr = smooth_image(16, 16)
    tiny_pipe(lr, generator=seeded(0), callback_on_step_end=keep)
    one = tiny_pipe(lr, num_inference_steps=1, generator=seeded(0), output_type="pt").images
    assert len(estimates) == 5
    torch.testing.assert_close(one, ((estimates[0] + 1) / 2).clamp(0, 1))


def test_callback_may_replace_the_state(tiny_pipe: UPSRPipeline) -> None:
    def paint(pipe: UPSRPipeline, step: int, t: int, tensors: dict[str, torch.Tensor]) -> dict:
        return {"latents": torch.full_like(tensors["latents"], 0.5)} if t == 0 else {}

    out = tiny_pipe(smooth_image(8, 8), generator=seeded(0), output_type="pt", callback_on_step_end=paint)
    assert torch.equal(out.images, torch.full_like(out.images, 0.75))


def test_no_noise_strength_is_no_noise(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(16, 16)
    first, second = (
        tiny_pipe(lr, generator=seeded(i), noise_strength=0.0, stochasticity=1.0, output_type="pt").images
        for i in (0, 1)
    )
    assert torch.equal(first, second)
    noisy = tiny_pipe(lr, generator=seeded(0), output_type="pt").images
    assert (noisy - first).abs().mean() > 1e-3


def test_flat_regions_keep_g(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(16, 16)
    sr = tiny_pipe.super_resolve(lr)

    def run(flat_threshold: float | None) -> torch.Tensor:
        return tiny_pipe(lr, generator=seeded(0), sr=sr, flat_threshold=flat_threshold, output_type="pt").images

    assert run(0.0).equal(run(None))
    sampled, mixed = run(0.0), run(1.0)
    kept = (sr + 1).div(2).clamp(0, 1)
    share = detail_share(sr, 1.0)
    assert share.max() < 0.5
    assert (mixed - kept).abs().mean() < 0.5 * (sampled - kept).abs().mean()
    # The last step's estimate: g's image and the denoiser's, mixed by the share.
    seen = {}

    def look(_pipe: UPSRPipeline, _step: int, _t: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return seen.update(tensors) or {}

    one = tiny_pipe(lr, 1, generator=seeded(0), sr=sr, flat_threshold=0.0, output_type="pt", callback_on_step_end=look)
    torch.testing.assert_close(one.images, (seen["pred_original_sample"] + 1).div(2).clamp(0, 1))
    expected = sr + share * (seen["pred_original_sample"] - sr)
    tiny_pipe(lr, 1, generator=seeded(0), sr=sr, flat_threshold=1.0, callback_on_step_end=look)
    torch.testing.assert_close(seen["pred_original_sample"], expected)


def test_a_photo_is_turned_upright(tiny_pipe: UPSRPipeline, tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.png", exif=exif)
    found, expected = (
        tiny_pipe(image, generator=seeded(0), output_type="pt").images
        for image in (Image.open(tmp_path / "a.png"), photo.transpose(Image.Transpose.ROTATE_270))
    )
    assert torch.equal(found, expected)


def test_an_array_of_any_layout_is_a_mask(tiny_pipe: UPSRPipeline) -> None:
    mask = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    found, expected = (
        tiny_pipe(LR, generator=seeded(0), noise_mask=one, output_type="pt").images
        for one in (mask.astype(">f4")[:, ::-1], mask.astype(np.float32)[:, ::-1].copy())
    )
    assert torch.equal(found, expected)


def test_an_overlap_that_the_memory_has_no_tiles_for_is_named(tiny_pipe: UPSRPipeline) -> None:
    with free_memory_as(lambda _: 0), pytest.raises(ValueError, match="tile_overlap 48 must be below 16: the memory"):
        tiny_pipe(smooth_image(64, 64), tile_overlap=48)


def test_noise_mask_works_where_it_is(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(20, 20)
    mask = torch.ones(80, 80)
    mask[:, :40] = 0

    def state_after_prior(mask: torch.Tensor | None, seed: int) -> torch.Tensor:
        states = []

        def keep(pipe: UPSRPipeline, step: int, t: int, tensors: dict[str, torch.Tensor]) -> dict:
            states.append(tensors["latents"] - tensors["pred_original_sample"])
            return {}

        tiny_pipe(lr, generator=seeded(seed), noise_mask=mask, callback_on_step_end=keep)
        return states[0][..., :80, :80]

    noisy = state_after_prior(mask, 0)
    assert noisy[..., :40].std() < 0.5 * noisy[..., 40:].std()
    for same in (mask[None], mask.numpy(), mask.expand(1, 3, 80, 80)):
        torch.testing.assert_close(state_after_prior(same, 0), noisy)


def test_one_tile_is_the_whole_image(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(32, 48)
    whole = tiny_pipe(lr, generator=seeded(0), tile_size=0, output_type="pt").images
    assert torch.equal(whole, tiny_pipe(lr, generator=seeded(0), tile_size=48, output_type="pt").images)
    assert torch.equal(whole, tiny_pipe(lr, generator=seeded(0), output_type="pt").images)


def test_tiles_in_batches_change_nothing(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(24, 40, batch=2)
    one, four = (
        tiny_pipe(
            lr, generator=[seeded(0), seeded(1)], tile_size=16, tile_overlap=4, tile_batch_size=n, output_type="pt"
        ).images
        for n in (1, 4)
    )
    torch.testing.assert_close(one, four, atol=2e-5, rtol=0)


def test_progress_counts_every_call(tiny_pipe: UPSRPipeline, capfd) -> None:
    tiny_pipe.set_progress_bar_config(disable=False)
    tiny_pipe(smooth_image(32, 32), generator=seeded(0), tile_size=16, tile_overlap=0, tile_batch_size=3)
    tiny_pipe.set_progress_bar_config(disable=True)
    # One call of g; 4 tiles in calls of 3 are 2 calls a step.
    assert "11/11" in capfd.readouterr().err


LR = smooth_image(16, 16)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"image": LR * 2}, r"must be in \[0,1\]"),
        ({"image": LR * float("nan")}, "holds NaN"),
        ({"image": LR.int()}, "must be float"),
        ({"image": LR[:, :2]}, r"must be \(3,h,w\)"),
        ({"image": np.zeros((4, 4), np.float32)}, r"must be \(h,w,3\)"),
        ({"image": LR[..., :0]}, "is empty"),
        ({"image": []}, "empty list"),
        ({"image": "photo.png"}, "not str"),
        ({"image": [LR, LR[..., 1:]]}, "several sizes"),
        ({"image": Image.new("RGBA", (4, 4))}, "transparency"),
        ({"image": Image.new("I;16", (4, 4))}, "more than 8 bits"),
        ({"num_inference_steps": 6}, "from 1 to 5"),
        ({"num_inference_steps": 0}, "from 1 to 5"),
        ({"stochasticity": 1.5}, "stochasticity must be"),
        ({"noise_strength": -1.0}, "noise_strength must"),
        ({"flat_threshold": -0.1}, "flat_threshold must"),
        ({"flat_threshold": "none"}, "flat_threshold must"),
        ({"noise": torch.zeros(1, 3, 8, 8)}, "noise must have shape"),
        ({"noise": torch.full((1, 3, 64, 64), torch.nan)}, "noise holds NaN"),
        ({"noise_strength": float("inf")}, "noise_strength must"),
        ({"noise_mask": torch.zeros(1, 3, 8, 8)}, "noise_mask must be"),
        ({"noise_weight": torch.full((64, 64), torch.inf)}, "noise_weight must be"),
        ({"noise_mask": -torch.ones(64, 64)}, "noise_mask must be from 0 to 100"),
        ({"tile_size": 24}, "multiple of 16"),
        ({"tile_size": -16}, "multiple of 16"),
        ({"image": smooth_image(32, 32), "tile_size": 16, "tile_overlap": 16}, "smaller than tile_size"),
        ({"tile_overlap": -1}, "tile_overlap must be a whole number"),
        ({"tile_overlap": 0.5}, "tile_overlap must be a whole number"),
        ({"tile_size": "auto"}, "tile_size must be a multiple of 16 LR pixels"),
        ({"tile_batch_size": 0}, "tile_batch_size must be"),
        ({"output_type": "latent"}, "output_type must be"),
        ({"generator": [torch.Generator()] * 2}, "2 entries for 1 images"),
        ({"callback_on_step_end_tensor_inputs": ["prompt"]}, "no 'prompt'"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_before_any_work(
    tiny_pipe: UPSRPipeline, monkeypatch: pytest.MonkeyPatch, args: dict, message: str
) -> None:
    monkeypatch.setattr(tiny_pipe, "_super_resolve", lambda *_: pytest.fail("g ran"))
    with pytest.raises(ValueError, match=message) as caught:
        tiny_pipe(**{"image": LR, **args})
    assert "\n" not in str(caught.value)


def test_missing_and_mismatched_components(tiny_pipe: UPSRPipeline) -> None:
    components = {"unet": tiny_pipe.unet, "scheduler": tiny_pipe.scheduler}
    with pytest.raises(ValueError, match="no sr_net"):
        UPSRPipeline(**components, sr_net=None)(LR)
    with pytest.raises(ValueError, match="sr_net has scale 2"):
        UPSRPipeline(**components, sr_net=build_tiny(2).sr_net)(LR)


def test_save_and_load(tiny_pipe: UPSRPipeline, tiny_folder: Path) -> None:
    index = json.loads((tiny_folder / "model_index.json").read_text())
    assert index["unet"] == ["upsr_core", "UPSRUNet"]
    assert {p.suffix for p in tiny_folder.rglob("*") if p.is_file()} == {".json", ".safetensors"}
    expected = tiny_pipe(LR, generator=seeded(0), output_type="pt").images
    for pipe in (UPSRPipeline.from_pretrained(tiny_folder), load_pipeline(tiny_folder)):
        pipe.set_progress_bar_config(disable=True)
        found = pipe(LR, generator=seeded(0), output_type="pt").images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_half_precision_variant(tmp_path: Path) -> None:
    pipe = build_tiny().to(torch.float16)
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    loaded = load_pipeline(tmp_path / "half", variant="fp16", dtype=torch.float16)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.unet.dtype == loaded.sr_net.dtype == torch.float16
    found, expected = (p(LR, generator=seeded(0), output_type="pt").images for p in (loaded, pipe))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert DiffusionPipeline.from_pretrained(tmp_path / "half", variant="fp16").unet.dtype == torch.float32


def test_dtype_by_name(tiny_folder: Path) -> None:
    assert load_pipeline(tiny_folder, dtype="bfloat16").unet.dtype == torch.bfloat16
    for wrong in ("half16", "int8", torch.int8):
        with pytest.raises(ValueError, match="dtype must be float32, float16, bfloat16"):
            load_pipeline(tiny_folder, dtype=wrong)


@pytest.mark.parametrize("name", ["../runs/mine", "./mine", "runs/mine/", "a/b/c", "runs/"])
def test_a_path_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(UPSRPipeline, "from_pretrained", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(ValueError, match="no such model folder"):
        load_pipeline(name)


def test_what_the_hub_does_not_have_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"^runs/mine: no such folder here, and no model by that name") as caught:
        load_pipeline("runs/mine")
    assert len(str(caught.value)) < 400


def test_nothing_to_load_is_one_clear_line(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such model folder"):
        load_pipeline(tmp_path / "nothing")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text((tiny_folder / "model_index.json").read_text())
    with pytest.raises(ValueError, match="cannot be loaded as a UPSR model") as caught:
        load_pipeline(broken)
    assert "\n" not in str(caught.value)


def test_noise_weight_replaces_the_schedulers(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(32, 16)
    psi, _ = tiny_pipe.estimate_uncertainty(lr)
    arguments = {"generator": seeded(0), "output_type": "pt"}

    def run(**given: object) -> torch.Tensor:
        arguments["generator"].manual_seed(0)
        return tiny_pipe(lr, **arguments, **given).images

    own = tiny_pipe.scheduler.noise_weight(psi)
    torch.testing.assert_close(run(noise_weight=own), run())
    torch.testing.assert_close(run(noise_weight=own * 0.5), run(noise_weight=own, noise_strength=0.5))
    torch.testing.assert_close(
        run(noise_weight=own * 0.5), run(noise_weight=own, noise_mask=torch.full((128, 64), 0.5))
    )
    one_channel = own.mean(1, keepdim=True)
    torch.testing.assert_close(run(noise_weight=one_channel), run(noise_weight=one_channel[:, 0]))
    with pytest.raises(ValueError, match=r"noise_weight must be \(128,64\)"):
        run(noise_weight=own[..., 1:])


def test_g_can_be_run_once_for_several_calls(tiny_pipe: UPSRPipeline) -> None:
    lr = smooth_image(19, 21, batch=2)
    arguments = {"output_type": "pt", "return_dict": False}
    images, psi = tiny_pipe(lr, generator=torch.Generator().manual_seed(0), **arguments)
    sr = tiny_pipe.super_resolve(lr)
    calls: list[int] = []
    handle = tiny_pipe.sr_net.register_forward_pre_hook(lambda *_: calls.append(1))
    again, psi_again = tiny_pipe(lr, generator=torch.Generator().manual_seed(0), sr=sr, **arguments)
    estimated, image = tiny_pipe.estimate_uncertainty(lr, sr=sr)
    assert not calls
    handle.remove()
    assert torch.equal(again, images)
    assert torch.equal(psi_again, psi)
    assert torch.equal(estimated, psi)
    assert torch.equal(image, tiny_pipe.estimate_uncertainty(lr)[1])
    with pytest.raises(ValueError, match=r"sr must have shape \(2, 3, 128, 128\)"):
        tiny_pipe(lr, sr=sr[..., :-1])
