"""The ablations of the paper's Table 1, and what else is changed by configuration alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.tiny import ONE_LAYER_ATD, ONE_LEVEL_UNET
from tests.trainer.runs import write_photos
from trainer.config import load_config
from trainer.stages import DenoiserStage
from trainer.train import main
from trainer.typed_yaml import ConfigError, load_yaml
from upsr_core import ATDModel, UNWScheduler, UPSRUNet, load_pipeline

CONFIGS = Path(__file__).parents[2] / "trainer" / "configs"
ABLATIONS = sorted(path.stem for path in (CONFIGS / "ablations").glob("*.yaml"))
# Of the published size, what makes a run short; all else is the ablation's own.
SMALL: dict[str, Any] = {
    "mixed_precision": "no",
    "validate_every": 0,
    "sr_net": ONE_LAYER_ATD,
    "sr_net_training": {"max_steps": 1, "batch_size": 2, "perceptual_weight": 0},
    "unet_training": {"max_steps": 2, "batch_size": 2, "perceptual_weight": 0},
}


def overrides(content: dict[str, Any], prefix: str = "") -> list[str]:
    """``key.sub=value`` for every value."""
    result = []
    for key, value in content.items():
        inner = isinstance(value, dict)
        result += (
            overrides(value, f"{prefix}{key}.")
            if inner
            else [f"{prefix}{key}={yaml.safe_dump(value).split(chr(10))[0]}"]
        )
    return result


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos", 3)


def small(photos: Path, folder: Path, hr_size: int) -> list[str]:
    data = {"train_dir": str(photos), "val_dir": str(photos), "preset": "bicubic", "hr_size": hr_size}
    data |= {"val_size": hr_size, "val_images": 1, "pool_size": 0, "num_workers": 0}
    return overrides({**SMALL, "output_dir": str(folder / "run"), "unet": ONE_LEVEL_UNET, "data": data})


def test_there_is_one_for_each_promise() -> None:
    assert ABLATIONS == ["no_sr_condition", "no_unw", "one_step", "resshift_15", "resshift_4", "x2"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_it_trains_and_gives_a_model_that_upscales(name: str, photos: Path, tmp_path: Path) -> None:
    path = CONFIGS / "ablations" / f"{name}.yaml"
    scale = load_config(path, ["data.train_dir=x"]).scale
    assert main(["--config", str(path), *small(photos, tmp_path, 8 * scale)]) == 0
    pipe = load_pipeline(tmp_path / "run" / "model")
    pipe.set_progress_bar_config(disable=True)
    images = pipe(torch.rand(1, 3, 8, 8), generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert images.shape == (1, 3, 8 * scale, 8 * scale)

    psi = torch.rand(1, 3, 4, 4)
    weight, config = pipe.scheduler.noise_weight(psi), pipe.scheduler.config
    if name in ("no_unw", "resshift_4", "resshift_15"):
        assert (weight == 1).all()
        assert config.input_variance == 1.0
    else:
        assert weight.std() > 0
    unaware = name in ("no_sr_condition", "resshift_4", "resshift_15")
    assert pipe.unet.config.sr_condition is not unaware
    steps = {"resshift_4": 4, "resshift_15": 15}.get(name, 5)
    assert len(pipe.scheduler) == steps
    assert len(pipe.scheduler.timesteps) == (1 if name == "one_step" else steps)
    assert scale == (2 if name == "x2" else 4)


def timesteps_seen(config_overrides: list[str], path: Path) -> set[int]:
    """Timesteps that the denoiser is trained at in 40 samples."""
    config = load_config(path, config_overrides)
    unet, sr_net = UPSRUNet(**config.unet_arguments), ATDModel(**config.sr_net_arguments)
    stage, seen = DenoiserStage(config, unet, None, sr_net, UNWScheduler(**config.scheduler)), set()
    unet.register_forward_pre_hook(lambda module, args: seen.update(args[1].tolist()))
    hr = torch.rand(40, 3, config.data.hr_size, config.data.hr_size)
    generators = [torch.Generator().manual_seed(i) for i in range(40)]
    with torch.no_grad():
        stage.losses(unet, hr[..., :: config.scale, :: config.scale], hr, generators)
    return seen


def test_training_sees_the_timesteps_that_the_model_samples_with(photos: Path, tmp_path: Path) -> None:
    changes = small(photos, tmp_path, 32)
    assert timesteps_seen(changes, CONFIGS / "ablations" / "one_step.yaml") == {4}
    assert timesteps_seen([*changes, "scheduler.default_inference_steps=3"], CONFIGS / "published.yaml") == {1, 3, 4}
    assert timesteps_seen(changes, CONFIGS / "published.yaml") == {0, 1, 2, 3, 4}


def test_resshifts_schedules_are_the_published_ones() -> None:
    fifteen, four = (
        UNWScheduler(**load_config(CONFIGS / "ablations" / f"resshift_{steps}.yaml", ["data.train_dir=x"]).scheduler)
        for steps in (15, 4)
    )
    assert (fifteen.config.kappa, fifteen.config.power, fifteen.config.min_noise_level) == (2.0, 0.3, 0.04)
    assert (four.config.kappa, four.config.power, four.config.min_noise_level) == (2.0, 0.3, 0.2)


def test_a_base_is_read_relative_to_the_file_and_changed_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "base.yaml").write_text("a: 1\nb: {c: 2, d: 3}\n")
    (tmp_path / "middle.yaml").write_text("base: inner/base.yaml\nb: {c: 4}\n")
    top = tmp_path / "inner" / "top.yaml"
    top.write_text("base: ../middle.yaml\na: 5\n")
    assert load_yaml(top) == {"a": 5, "b": {"c": 4, "d": 3}}
    # Weights of folders or presets are one value, and an empty section is empty.
    (tmp_path / "inner" / "base.yaml").write_text("data: {train_dir: {x: 1, y: 2}, hr_size: 8}\nb: {c: 2}\n")
    top.write_text("base: base.yaml\ndata: {train_dir: {z: 1}}\nb: {}\n")
    assert load_yaml(top) == {"data": {"train_dir": {"z": 1}, "hr_size": 8}, "b": {}}
    top.write_text("base: ../middle.yaml\na: 5\n")
    (tmp_path / "inner" / "base.yaml").write_text("base: top.yaml\n")
    with pytest.raises(ConfigError, match=r"is its own base, by way of top\.yaml, middle\.yaml, base\.yaml"):
        load_yaml(top)
    top.write_text("base: missing.yaml\n")
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        load_yaml(top)
