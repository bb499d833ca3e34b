"""The folder of a run of ``upsr evaluate``: images, and a record beside each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..images.files import DecodedImage, read_image, write_image
from ..images.whole_files import write_whole
from ..pixels import quantise


def pixel_hash(image: torch.Tensor) -> str:
    """SHA-256 of the 8-bit values and the size of an image (1,3,H,W) in [0,1]."""
    levels = quantise(image).byte()
    return hashlib.sha256(f"{tuple(image.shape)}".encode() + levels.numpy().tobytes()).hexdigest()


@dataclass
class Record:
    """One result.

    Attributes:
        path: of the image.
        made: the settings and inputs that it follows from; where another value is wanted, it is made again.
        pixels: `pixel_hash` of the image.
        seconds: time of making it.
        peak_bytes: memory of the process or the device meanwhile; None where it cannot be told.
        scores: by metric, ``{"of": fingerprint, "values": numbers}``.
    """

    path: Path
    made: dict[str, Any]
    pixels: str
    seconds: float
    peak_bytes: int | None
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, made: dict[str, Any]) -> Record | None:
        """The record of a whole result with this ``made``, or None."""
        try:
            stored = json.loads(_beside(path).read_text())
            record = cls(path, **stored)
            image = record.image()
        except (OSError, ValueError, TypeError):
            return None
        return record if record.made == made and record.pixels == pixel_hash(image) else None

    def image(self) -> torch.Tensor:
        """(1,3,H,W) in [0,1], in whole levels."""
        return read_image(self.path).rgb

    def write(self) -> None:
        """Write the record; the image is there already."""
        fields = {name: getattr(self, name) for name in ("made", "pixels", "seconds", "peak_bytes", "scores")}
        write_whole(_beside(self.path), (json.dumps(fields, indent=1) + "\n").encode())

    def values(self, metric: str, of: dict[str, Any]) -> list[float] | None:
        """The scores by a metric of this fingerprint, if they are known."""
        stored = self.scores.get(metric)
        return stored["values"] if stored is not None and stored["of"] == of else None


def save_image(path: Path, image: torch.Tensor) -> torch.Tensor:
    """Write (1,3,H,W) in [0,1] as an 8-bit PNG; returns the rounded values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = quantise(image) / 255
    write_image(path, DecodedImage(levels))
    return levels


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")
