"""Opening the images that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer.data.config import DataConfig
from trainer.data.sources.base import ImageSource
from trainer.data.sources.hub_datasets import DatasetSource
from trainer.data.sources.image_folders import FolderSource
from trainer.data.sources.mixture import MixedSource
from trainer.data.sources.pairs import PairSource
from trainer.data.sources.shards import ShardSource
from trainer.typed_yaml import ConfigError


@dataclass(frozen=True)
class Images:
    """Images of a run: to train on, and held-out ones if there are any."""

    train: ImageSource
    val: ImageSource | None


def open_images(data: DataConfig, scale: int) -> Images:
    """Open the images and look into them, see `ImageSource.check`.

    Args:
        data: the images' places.
        scale: super-resolution factor, for pairs.

    Raises:
        ConfigError: they cannot be used; the line begins with the key.
    """
    train = _source(data, "train", scale)
    assert train is not None, "DataConfig asks for one"
    return Images(train, _source(data, "val", scale))


def _source(data: DataConfig, part: str, scale: int) -> ImageSource | None:
    folder, lr_folder = getattr(data, f"{part}_dir"), getattr(data, f"{part}_lr_dir")
    shards, dataset = getattr(data, f"{part}_shards"), getattr(data, f"{part}_dataset")
    weights = folder if isinstance(folder, dict) else {folder: 1.0}
    makers: dict[str, Callable[[], ImageSource]] = {}
    if lr_folder is not None:
        makers["lr_dir"] = lambda: PairSource(next(iter(weights)), lr_folder, scale)
    elif len(weights) > 1:
        makers["dir"] = lambda: MixedSource({FolderSource(one): weight for one, weight in weights.items()})
    elif folder is not None:
        makers["dir"] = lambda: FolderSource(next(iter(weights)))
    if shards is not None:
        makers["shards"] = lambda: ShardSource(shards)
    if dataset is not None:
        makers["dataset"] = lambda: DatasetSource(dataset)
    # DataConfig has seen to it that there is one at most.
    for kind, make in makers.items():
        try:
            source = make()
            source.check()
        except ValueError as error:
            raise ConfigError(f"data.{part}_{kind}: {error}") from error
        return source
    return None
