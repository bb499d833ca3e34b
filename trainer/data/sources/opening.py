"""From the configuration to the source it means."""

from __future__ import annotations

from collections.abc import Callable

from trainer.data.config import DataConfig
from trainer.data.sources.base import ImageSource
from trainer.data.sources.hub_datasets import DatasetSource
from trainer.data.sources.image_folders import FolderSource
from trainer.data.sources.pairs import PairSource
from trainer.data.sources.shards import ShardSource
from trainer.typed_yaml import ConfigError


def training_source(data: DataConfig, scale: int, check: bool = False) -> ImageSource:
    """The images to train on.

    Args:
        data: which.
        scale: super-resolution factor, for pairs.
        check: look into them as well, see `ImageSource.check`.

    Raises:
        ConfigError: they can not be used; the line begins with the key.
    """
    source = _source(data, "train", scale, check)
    assert source is not None
    return source


def validation_source(data: DataConfig, scale: int, check: bool = False) -> ImageSource | None:
    """The held-out images, None where there are none; otherwise as `training_source`."""
    return _source(data, "val", scale, check)


def _source(data: DataConfig, part: str, scale: int, check: bool) -> ImageSource | None:
    folder, lr_folder = getattr(data, f"{part}_dir"), getattr(data, f"{part}_lr_dir")
    shards, dataset = getattr(data, f"{part}_shards"), getattr(data, f"{part}_dataset")
    makers: dict[str, Callable[[], ImageSource]] = {}
    if lr_folder is not None:
        makers["lr_dir"] = lambda: PairSource(folder, lr_folder, scale)
    elif folder is not None:
        makers["dir"] = lambda: FolderSource(folder)
    if shards is not None:
        makers["shards"] = lambda: ShardSource(shards)
    if dataset is not None:
        makers["dataset"] = lambda: DatasetSource(dataset)
    # DataConfig has seen to it that there is one at most.
    for kind, make in makers.items():
        try:
            source = make()
            if check:
                source.check()
        except ValueError as error:
            raise ConfigError(f"data.{part}_{kind}: {error}") from error
        return source
    return None
