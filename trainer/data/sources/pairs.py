"""Folders of aligned LR and HR photos of the same scenes, which need no degradation."""

from __future__ import annotations

import os
from pathlib import Path

from trainer.data.sources.base import UNREADABLE, ImageSource, Photo, read_rgb
from trainer.data.sources.image_folders import FolderSource
from upsr_core.evaluation.datasets import image_size
from upsr_core.messages import one_line


class PairSource(ImageSource):
    """Pairs with the same name and the same place below two folders; the extensions may differ.

    Args:
        hr_root, lr_root: the folders.
        scale: HR sides divided by LR sides.

    Raises:
        ValueError: a folder is missing or empty, or a photo has no partner.
    """

    paired = True

    def __init__(self, hr_root: str | Path, lr_root: str | Path, scale: int):
        self.title, self.scale = f"{hr_root} and {lr_root}", scale
        hr, lr = _named(FolderSource(hr_root)), _named(FolderSource(lr_root))
        for names, others, folder in ((hr, lr, lr_root), (lr, hr, hr_root)):
            if alone := names.keys() - others.keys():
                example = names[min(alone)]
                raise ValueError(f"{example}: has no partner of that name in {folder} ({len(alone)} photos without)")
        self._pairs = [(path, lr[name]) for name, path in hr.items()]

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        """The path of the HR photo, which names the pair."""
        return self._pairs[index][0]

    def read(self, index: int) -> Photo:
        """Both photos; see `ImageSource.read`."""
        hr_path, lr_path = self._pairs[index]
        hr = read_rgb(hr_path)
        try:
            lr = read_rgb(lr_path)
        except UNREADABLE as error:
            raise ValueError(f"{lr_path}: {one_line(error)}") from error
        self._check_sizes(hr_path, lr_path, hr.shape[:2], lr.shape[:2])
        return Photo(hr, lr)

    def check(self) -> None:
        """Look at the sizes of all pairs, without decoding them, then as `ImageSource.check`.

        Raises:
            ValueError: naming the first pair whose sizes are not ``scale`` apart.
        """
        for hr_path, lr_path in self._pairs:
            try:
                sizes = image_size(Path(hr_path)), image_size(Path(lr_path))
            except UNREADABLE:
                # Will be skipped and named when it is its turn.
                continue
            self._check_sizes(hr_path, lr_path, *sizes)
        super().check()

    def _check_sizes(self, hr_path: str, lr_path: str, hr: tuple[int, ...], lr: tuple[int, ...]) -> None:
        if hr != tuple(self.scale * side for side in lr):
            raise ValueError(
                f"{hr_path} is {hr[1]}x{hr[0]} and {lr_path} {lr[1]}x{lr[0]}: HR must be exactly scale = "
                f"{self.scale} times LR; crop the photos or set scale"
            )


def _named(folder: FolderSource) -> dict[str, str]:
    """Paths by their place below the folder without extension."""
    paths: dict[str, str] = {}
    for i in range(len(folder)):
        path = folder.name(i)
        name = os.path.splitext(os.path.relpath(path, folder.root))[0]
        if name in paths:
            raise ValueError(f"{path} and {paths[name]}: pairs go by names without extension; rename or remove one")
        paths[name] = path
    return paths
