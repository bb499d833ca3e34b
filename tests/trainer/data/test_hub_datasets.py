"""Hugging Face datasets: the same images as from a folder, without network access."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.photo_files import levels, png, save_gradient
from trainer.data.batches import Batches
from trainer.data.config import DataConfig, DatasetConfig
from trainer.data.sources.hub_datasets import DatasetSource
from trainer.data.sources.opening import open_images
from trainer.typed_yaml import ConfigError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """``save_to_disk`` of two splits; one row is a file on disk, one is broken and one is empty."""
    save_gradient(tmp_path / "photo.png", 40, 50, 0)
    rows = [str(tmp_path / "photo.png"), *({"bytes": png(40, 50, 10 * i), "path": None} for i in range(1, 4))]
    rows += [{"bytes": b"broken", "path": None}, None]

    def split(images: list) -> datasets.Dataset:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int32")})
        return datasets.Dataset.from_dict({"image": images, "label": list(range(len(images)))}, features=features)

    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": split(rows), "test": split(rows[1:2])}).save_to_disk(folder)
    split(rows[2:3]).save_to_disk(tmp_path / "whole")
    return folder


def test_rows_are_read_as_files_are(saved: Path) -> None:
    source = DatasetSource(DatasetConfig(str(saved), "train"))
    assert len(source) == 6
    assert [int(source.read(i).hr[0, 0, 2]) for i in range(4)] == [0, 10, 20, 30]
    assert source.read(1).hr.shape == (40, 50, 3)
    assert source.name(3) == f"{saved}, split train/row 3"
    for i in (4, 5):
        with pytest.raises((ValueError, OSError)):
            source.read(i)
    assert DatasetSource(DatasetConfig(str(saved), "test")).read(0).hr[0, 0, 2] == 10
    assert DatasetSource(DatasetConfig(str(saved.with_name("whole")))).read(0).hr[0, 0, 2] == 20


def test_a_stream_of_rows_goes_on_exactly_where_it_was_left(saved: Path) -> None:
    def stream(start: int, num_workers: int):  # type: ignore[no-untyped-def]
        dataset = DatasetConfig(str(saved), "train")
        data = DataConfig(train_dataset=dataset, hr_size=24, preset="bicubic", num_workers=num_workers)
        return Batches(data, open_images(data, 4).train, 4, 2, 3, torch.device("cpu"), 0, 1).from_micro_step(start)

    whole, resumed = stream(0, 0), stream(10, 2)
    expected = [next(whole) for _ in range(20)]
    assert {int(levels({"hr": hr[0]})[2, 0, 0]) for _, hr in expected} == {0, 10, 20, 30}
    for pair in expected[10:]:
        assert all(torch.equal(a, b) for a, b in zip(pair, next(resumed), strict=True))


@pytest.mark.parametrize(
    ("name", "split", "column", "message"),
    [
        ("saved", "trian", "image", "has no split trian; splits: train, test$"),
        ("saved", None, "image", "has no split None; splits: train, test$"),
        ("whole", "train", "image", "has no split train; splits: none, leave it out$"),
        ("saved", "train", "label", "label is no column of images; columns of images: image$"),
        (".", None, "image", "cannot be loaded"),
        ("nobody/nothing", None, "image", "needs its split"),
    ],
)
def test_what_is_missing_is_named_in_one_line(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str, split: str | None, column: str, message: str
) -> None:
    monkeypatch.chdir(saved.parent)
    data = DataConfig(train_dataset=DatasetConfig(name, split, image_column=column))
    with pytest.raises(ConfigError, match=rf"^data\.train_dataset: {name}.*{message}") as error:
        open_images(data, 4)
    assert "\n" not in str(error.value)


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"^nobody/nothing: cannot be loaded: ") as error:
        DatasetSource(DatasetConfig("nobody/nothing", "train"))
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"^x: needs the datasets package .*; pip install datasets$"):
        DatasetSource(DatasetConfig("x", "train"))
