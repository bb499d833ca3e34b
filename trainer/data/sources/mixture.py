"""Several sources as one, each with its share of the training samples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from trainer.data.sources.base import ImageSource, Photo


class MixedSource(ImageSource):
    """Images of several sources, repeated until each source has its share of a pass.

    A pass holds every image at least once, and as few repetitions as the shares allow. A repetition is an image with a
    number of its own, and so with a crop of its own.

    Args:
        weights: each source with its weight, above 0; its share is the weight divided by the sum of all.
    """

    def __init__(self, weights: Mapping[ImageSource, float]):
        self.sources = tuple(weights)
        self.title = ", ".join(source.title for source in self.sources)
        shares = np.array(list(weights.values())) / sum(weights.values())
        lengths = np.array([len(source) for source in self.sources])
        counts = np.maximum(lengths, np.rint(shares * (lengths / shares).max()).astype(int))
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        """The image's name in its own source."""
        source, own = self._place(index)
        return source.name(own)

    def original(self, index: int) -> Hashable:
        """The source and the image there."""
        source, own = self._place(index)
        return source, source.original(own)

    def read(self, index: int) -> Photo:
        """The photo alone; see `ImageSource.read`."""
        source, own = self._place(index)
        return source.read(own)

    def check(self) -> None:
        """Check each source."""
        for source in self.sources:
            source.check()

    def _place(self, index: int) -> tuple[ImageSource, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        source = self.sources[number]
        return source, (index - start) % len(source)
