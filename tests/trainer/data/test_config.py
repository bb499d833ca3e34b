"""Combinations of sources: which can be used, and the one line about those that can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.config import load_config
from trainer.data.config import DatasetConfig
from trainer.typed_yaml import ConfigError, build, to_plain

MINIMAL: dict[str, Any] = {
    "output_dir": "run",
    "data": {"train_dir": "hr"},
    "sr_net_training": {"max_steps": 1},
    "unet_training": {"max_steps": 1},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def test_every_kind_of_source_can_be_set_on_the_command_line(file: Path) -> None:
    overrides = ["data.train_dir=null", "data.train_shards=x-{000..146}.tar", "data.val_dataset.path=some/photos"]
    data = load_config(file, [*overrides, "data.val_dataset.split=test"]).data
    assert (data.train_dir, data.train_shards) == (None, "x-{000..146}.tar")
    assert data.val_dataset == DatasetConfig("some/photos", "test")
    assert data.has_validation
    assert build(type(data), yaml.safe_load(yaml.safe_dump(to_plain(data)))) == data
    pairs = load_config(file, ["data.train_lr_dir=lr", "data.val_dir=hr", "data.val_lr_dir=lr"]).data
    assert (pairs.train_lr_dir, pairs.val_lr_dir) == (Path("lr"), Path("lr"))
    assert not load_config(file, ["data.train_lr_dir=lr"]).data.has_validation


def test_folders_can_have_weights(file: Path) -> None:
    assert load_config(file).data.train_dir == {Path("hr"): 1.0}
    config = load_config(file, ["data.train_dir={photos: 3, more/textures: 1}"])
    assert config.data.train_dir == {Path("photos"): 3.0, Path("more/textures"): 1.0}
    assert build(type(config), yaml.safe_load(yaml.safe_dump(to_plain(config)))) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train_dir=null"], r"^data\.train_dir: is missing \(or data\.train_shards or data\.train_dataset\)"),
        (["train_shards=x.tar"], r"^data: only one of train_dir, train_shards can be used; set the others to null$"),
        (["val_dir=x", "val_dataset.path=x"], r"^data: only one of val_dir, val_dataset can be used"),
        (["train_dir=null", "train_shards=x", "train_lr_dir=x"], r"^data: train_lr_dir needs .*set train_dir$"),
        (["val_lr_dir=x"], r"^data: val_lr_dir needs the HR images of its pairs; set val_dir$"),
        (["train_lr_dir=x", "val_dir=x"], r"^data: train_lr_dir trains on pairs, but validation has none; "),
        (["train_lr_dir=x", "degradation.bicubic_prob=1"], r"^data: degradation does nothing with train_lr_dir"),
        (["fonts=x"], r"^data: fonts does nothing without lettering; set lettering, or leave it out"),
        (["train_lr_dir=x", "lettering=0.1"], r"^data: lettering does nothing with train_lr_dir"),
        (["train_lr_dir=x", "degrade_on=device"], r"^data: degrade_on does nothing with train_lr_dir"),
        (["train_dir={a: 1, b: 0}"], r"^data\.train_dir\.b: must be greater than 0, not 0$"),
        (["train_dir={a: 1, b: 1}", "train_lr_dir=x"], r"^data: train_lr_dir needs the one folder"),
        (["val_dataset.split=test"], r"^data\.val_dataset\.path: is missing"),
        (["val_dataset.paht=x"], r"^data\.val_dataset\.paht: no such key; did you mean data\.val_dataset\.path\?"),
    ],
)
def test_impossible_combinations_are_refused(file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(file, [f"data.{override}" for override in overrides])
    assert "\n" not in str(error.value)
