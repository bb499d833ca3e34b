"""Hugging Face datasets with an image column."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from trainer.data.config import DatasetConfig
from trainer.data.sources.base import UNREADABLE, ImageSource, Photo, read_rgb
from upsr_core.messages import one_line


class DatasetSource(ImageSource):
    """The rows of a dataset from the Hub, or of a folder that ``save_to_disk`` has written.

    Args:
        config: which one.

    Raises:
        ValueError: the datasets package, the dataset, its split or its column is missing.
    """

    def __init__(self, config: DatasetConfig):
        try:
            import datasets
        except ImportError as error:
            raise ValueError(f"{config.path}: needs the datasets package ({error}); pip install datasets") from error
        self.title = config.path if config.split is None else f"{config.path}, split {config.split}"
        dataset = _load(config)
        column = dataset.features.get(config.image_column)
        if not isinstance(column, datasets.Image):
            images = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
            raise ValueError(
                f"{self.title}: {config.image_column} is no column of images; "
                f"columns of images: {', '.join(images) or 'none'}"
            )
        if not len(dataset):
            raise ValueError(f"{self.title}: no images in it")
        # The files as they are: decoding is the same for all sources.
        files = dataset.select_columns([config.image_column])
        self._files = files.cast_column(config.image_column, datasets.Image(decode=False))
        self._column = config.image_column

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The dataset and the row's number."""
        return f"{self.title}/row {index}"

    def read(self, index: int) -> Photo:
        """The photo alone; see `ImageSource.read`."""
        file = self._files[index][self._column]
        if file is None:
            raise ValueError("there is no image in this row")
        return Photo(read_rgb(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])))


def _load(config: DatasetConfig) -> Any:
    import datasets

    folder = Path(config.path).expanduser()
    if not folder.is_dir() and config.split is None:
        raise ValueError(f"{config.path}: a dataset from the Hub needs its split; set split, as in split: train")
    try:
        if not folder.is_dir():
            return datasets.load_dataset(config.path, config.name, split=config.split)
        loaded = datasets.load_from_disk(str(folder))
    except (*UNREADABLE, ImportError) as error:
        raise ValueError(f"{config.path}: cannot be loaded: {one_line(error)}") from error
    splits = list(loaded) if isinstance(loaded, datasets.DatasetDict) else []
    if splits and config.split in splits:
        return loaded[config.split]
    if splits or config.split is not None:
        raise ValueError(
            f"{config.path}: has no split {config.split}; splits: {', '.join(splits) or 'none, leave it out'}"
        )
    return loaded
