"""The typed configuration: what it accepts, and the one line it says about what it doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from trainer.config import TrainConfig, load_config
from trainer.typed_yaml import ConfigError, build, load_yaml, to_plain
from upsr_core import ATDModel, ConvSRModel, UNWScheduler, UPSRUNet
from upsr_core.models import SRNet

CONFIGS = Path(__file__).parents[2] / "trainer" / "configs"
IMAGES = ["data.train_dir=photos"]
MINIMAL: dict[str, Any] = {
    "output_dir": "runs/x",
    "data": {"train_dir": "photos", "hr_size": 256},
    "sr_net_training": {"max_steps": 10},
    "unet_training": {"max_steps": 10},
}


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def test_yaml_and_overrides_give_typed_values(minimal: Path) -> None:
    config = load_config(
        minimal,
        [
            "sr_net_training.lr=1e-4",
            "unet_training.max_steps=2e5",
            "unet_training.max_grad_norm=1",
            "unet_training.max_minutes=null",
            "unet.channel_mult=[1,2,2,4]",
            "unet.shift_mask=swin",
            "sr_net.mlp_ratio=2",
            "data.val_dir=held out",
            "data.cache=true",
            "mixed_precision=bf16",
        ],
    )
    assert config.sr_net_training.lr == 1e-4
    assert config.unet_training.max_steps == 200000
    assert isinstance(config.unet_training.max_steps, int)
    assert isinstance(config.unet_training.max_grad_norm, float)
    assert config.unet == {"channel_mult": [1, 2, 2, 4], "shift_mask": "swin"}
    assert isinstance(config.sr_net["mlp_ratio"], float)
    assert config.data.val_dir == Path("held out")
    assert config.data.cache is True
    assert config.stages == ("sr_net", "unet")


def test_a_file_with_1e_4_in_it_holds_a_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL).replace("max_steps: 10", "max_steps: 10\n  lr: 1e-4", 1))
    assert load_config(path).sr_net_training.lr == 1e-4


def test_what_a_run_writes_down_is_the_same_configuration(minimal: Path) -> None:
    config = load_config(minimal, ["data.degradation.second.jpeg.quality=[50,60]", "unet.num_feat=64"])
    again = build(TrainConfig, yaml.safe_load(yaml.safe_dump(to_plain(config))))
    assert again == config


def test_changes_to_a_preset_keep_the_rest_of_it(minimal: Path) -> None:
    overrides = ["data.preset=mild", "data.degradation.bicubic_prob=0.1", "data.degradation.second.jpeg.prob=0"]
    changed = load_config(minimal, overrides).data.degradation_config()
    preset = load_config(minimal, ["data.preset=mild"]).data.degradation_config()
    assert (changed.bicubic_prob, changed.second.jpeg.prob) == (0.1, 0)
    assert changed.second.jpeg.quality == preset.second.jpeg.quality
    assert changed.first == preset.first


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.trian_dir=x", r"^data\.trian_dir: no such key; did you mean data\.train_dir\?$"),
        ("unet.channels_mult=[1]", r"^unet\.channels_mult: no such key; did you mean unet\.channel_mult\?$"),
        ("unet.scale=2", r"^unet\.scale: no such key"),
        ("scheduler.kapa=2", r"did you mean scheduler\.kappa\?$"),
        ("optimizer.lr=1", r"^optimizer: no such key"),
        ("data.degradation.first.blur.sigmas=[1,2]", r"did you mean data\.degradation\.first\.blur\.sigma\?$"),
        ("data.degradation.bicubic_prob=2", r"^data\.degradation: .*bicubic_prob must lie in \[0,1\]"),
        (
            "data.preset=milt",
            r"^data\.preset: must be one of upsr, real-esrgan, resshift, mild, moderate, bicubic, not 'milt'$",
        ),
        ("data.degradation_mix.milt=1", r"^data\.degradation_mix\.milt: must be one of upsr, .*, not 'milt'$"),
        ("sr_net_training.lr=fast", r"^sr_net_training\.lr: must be a valid number, not 'fast'$"),
        ("sr_net_training.lr=.nan", r"^sr_net_training\.lr: must be a finite number, not nan$"),
        ("sr_net_training.lr=-1", r"^sr_net_training\.lr: must be greater than 0, not -1$"),
        ("sr_net_training.max_steps=1.5", r"^sr_net_training\.max_steps: must be a valid integer, not 1\.5$"),
        ("sr_net_training.max_steps=true", r"^sr_net_training\.max_steps: must be a valid integer, not True$"),
        ("sr_net_training.max_steps=0", r"^sr_net_training\.max_steps: must be greater than 0, not 0$"),
        ("unet_training.ema_decay=1", r"^unet_training\.ema_decay: must be less than 1, not 1$"),
        ("data.cache=1", r"^data\.cache: must be a valid boolean, not 1$"),
        ("unet.channel_mult=4", r"^unet\.channel_mult: must be a list such as \[1,2\], not 4$"),
        ("unet.channel_mult=[1,x]", r"^unet\.channel_mult\[1\]: must be a valid integer, not 'x'$"),
        ("unet.shift_mask=none", r"^unet\.shift_mask: must be .*'swin'.*, not 'none'$"),
        ("stage=g", r"^stage: must be 'sr_net', 'unet' or 'both', not 'g'$"),
        ("unet=7", r"^unet: must be a section of keys and values, not 7$"),
        ("data=null", r"^data: must be a section of keys and values, not None$"),
        ("output_dir.x=1", r"output_dir is a value, not a section$"),
        ("seed", r"^'seed': an override must read key=value"),
        ("trackers=[wandb,wandb]", r"^trackers names one twice: wandb, wandb$"),
        ("trackers=[mlflow]", r"^trackers\[0\]: must be 'tensorboard' or 'wandb', not 'mlflow'$"),
        ("scale=3", r"^scale: must be 1, 2, 4 or 8, not 3$"),
        ("conv_sr_net.chanels=8", r"^conv_sr_net\.chanels: no such key; did you mean conv_sr_net\.channels\?$"),
        ("data.hr_size=250", r"^data\.hr_size 250 must be a multiple of scale 4$"),
    ],
)
def test_mistakes_are_named_in_one_line(minimal: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(minimal, [override])
    assert "\n" not in str(error.value)


def test_g_is_one_or_the_other(minimal: Path) -> None:
    chosen = ["conv_sr_net={channels: 8}"]
    config = load_config(minimal, chosen)
    assert (config.sr_net_class, config.sr_net_arguments) == (ConvSRModel, {"scale": 4, "channels": 8})
    assert load_config(minimal).sr_net_class is ATDModel
    with pytest.raises(ConfigError, match=r"^conv_sr_net: sr_net is set, too; .*sr_net=\{\} or conv_sr_net=null$"):
        load_config(minimal, [*chosen, "sr_net.depths=[1]"])


def test_a_key_that_is_given_twice_is_refused(minimal: Path) -> None:
    # What a shell makes of data.train_shards=photos-{000..001}.tar
    expanded = ["data.train_shards=photos-000.tar", "data.train_shards=photos-001.tar"]
    message = r"^data\.train_shards: is given twice, as 'photos-000\.tar' and 'photos-001\.tar'; .* in quotes"
    with pytest.raises(ConfigError, match=message):
        load_config(minimal, expanded)


def test_missing_keys_and_unreadable_files_are_named(tmp_path: Path, minimal: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("data: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not YAML"):
        load_config(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml: must hold keys and values"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")
    path.write_text(yaml.safe_dump({**MINIMAL, "data": {"hr_size": 256}}))
    with pytest.raises(ConfigError, match=r"^data\.train_dir: is missing .*data\.train_dir=VALUE$"):
        load_config(path)


def count_parameters(cls: type[UPSRUNet] | type[SRNet], arguments: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in cls(**arguments).parameters())


def test_published_is_what_was_published() -> None:
    config = load_config(CONFIGS / "published.yaml", IMAGES)
    training = config.unet_training
    assert (training.lr, training.weight_decay, training.warmup_steps) == (1e-4, 0.0, 5000)
    assert (training.max_steps, training.batch_size, training.lr_schedule) == (200_000, 16, "constant")
    assert (training.ema_decay, training.perceptual_weight, training.max_grad_norm) == (0.999, 0.5, None)
    assert (config.mixed_precision, config.data.preset, config.data.hr_size) == ("fp16", "upsr", 256)
    assert 160 <= config.data.pool_size <= 180
    scheduler, published = UNWScheduler(**config.scheduler).config, UNWScheduler().config
    assert all(scheduler[key] == value for key, value in published.items() if not key.startswith("_"))
    assert count_parameters(UPSRUNet, config.unet_arguments) == 119_418_319
    assert count_parameters(ATDModel, config.sr_net_arguments) == 2_532_360


def test_tiny_is_small() -> None:
    config = load_config(CONFIGS / "tiny.yaml", IMAGES)
    # With g below 20 MB in half precision.
    assert count_parameters(UPSRUNet, config.unet_arguments) < 9_000_000
    assert count_parameters(config.sr_net_class, config.sr_net_arguments) < 1_000_000
    assert (config.data.preset, config.unet["global_residual"]) == ("mild", True)


@pytest.mark.parametrize("text", ["no", '"no"', "bf16"])
def test_no_needs_no_quotes(text: str) -> None:
    """YAML reads it as false."""
    config = load_config(CONFIGS / "tiny.yaml", [*IMAGES, f"mixed_precision={text}"])
    assert config.mixed_precision == text.strip('"')


def test_a_value_may_be_named_and_used_again(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("sr_net: &small {depths: [1]}\nunet: *small\n")
    assert load_yaml(file) == {"sr_net": {"depths": [1]}, "unet": {"depths": [1]}}
