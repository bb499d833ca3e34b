"""Which images a run trains on and what is made of them, with the checks that need no data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.typed_yaml import ConfigError, build, merged
from upsr_core.degradation.config import DEGRADATION_PRESETS, DegradationConfig


@dataclass(frozen=True)
class DatasetConfig:
    """A Hugging Face dataset with a column of images.

    Attributes:
        path: repository id on the Hub, or a folder that ``save_to_disk`` has written.
        split: which part of it; None for a folder that holds no parts.
        name: which configuration of the Hub's dataset, where it has several.
        image_column: the column.
    """

    path: str
    split: str | None = None
    name: str | None = None
    image_column: str = "image"


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what is made of them.

    Training takes exactly one of ``train_dir``, ``train_shards`` and ``train_dataset``; validation at most one of its
    three, and without any there is none.

    Attributes:
        train_dir, val_dir: folder of HR images, searched with its subfolders.
        train_lr_dir, val_lr_dir: folder of LR images with the names of those in ``train_dir`` or ``val_dir``; such
            pairs are used as they are, without degradation.
        train_shards, val_shards: WebDataset tar files: one, a folder of them, or several such as
            ``photos-{000..146}.tar`` or ``*.tar``.
        train_dataset, val_dataset: Hugging Face dataset.
        hr_size: side in pixels of the random HR crops; LR is ``hr_size / scale``.
        preset: name of the degradation in `upsr_core.degradation.config.DEGRADATION_PRESETS`.
        degradation: changes to the preset, keyed as `DegradationConfig`.
        degradation_mix: shares of several presets, such as ``{bicubic: 0.2, mild: 0.4, upsr: 0.4}``, instead of
            ``preset``; each training sample draws one. Validation degrades with ``preset``.
        shrink: smallest factor that an HR photo is reduced by before it is cropped, in (0,1]; each crop draws its own
            from there to 1. JPEG traces shrink with the photo.
        degrade_on: make the LR crops where the images are read (``loader``) or on the training device.
        pool_size: LR-HR pairs that a process keeps and shuffles across batches; 0 takes batches as they come.
        cache: decode all photos once and keep them in memory, for small folders.
        num_workers: processes that read and degrade beside the training process; 0 does it in between.
        val_size: side in HR pixels of the centre crops that are validated.
        val_images: at most so many of the held-out images are validated.
    """

    train_dir: Path | None = None
    train_lr_dir: Path | None = None
    train_shards: str | None = None
    train_dataset: DatasetConfig | None = None
    val_dir: Path | None = None
    val_lr_dir: Path | None = None
    val_shards: str | None = None
    val_dataset: DatasetConfig | None = None
    hr_size: int = 256
    preset: str = "upsr"
    degradation: dict[str, Any] = field(default_factory=dict)
    degradation_mix: dict[str, float] = field(default_factory=dict)
    shrink: float = 1.0
    degrade_on: Literal["loader", "device"] = "loader"
    pool_size: int = 0
    cache: bool = False
    num_workers: int = 0
    val_size: int = 256
    val_images: int = 20

    def __post_init__(self) -> None:
        presets = ", ".join(DEGRADATION_PRESETS)
        _require(self.preset in DEGRADATION_PRESETS, f"preset must be one of {presets}, not {self.preset!r}")
        for name in ("pool_size", "num_workers"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
        _require(self.val_images >= 1, f"val_images must be at least 1, not {self.val_images}")
        for name, share in self.degradation_mix.items():
            _require(name in DEGRADATION_PRESETS, f"degradation_mix names {name!r}, which is none of {presets}")
            _require(share > 0, f"degradation_mix.{name} must be above 0, not {share}")
        _require(
            not (self.degradation_mix and self.degradation),
            "degradation changes one preset and cannot be used with degradation_mix; leave out one",
        )
        _require(0 < self.shrink <= 1, f"shrink must be in (0,1], not {self.shrink}")
        _require(self.shrink == 1 or self.train_lr_dir is None, "shrink cannot be used with train_lr_dir; leave it out")
        self._check_sources()
        self.degradation_config()

    def _check_sources(self) -> None:
        if not self._given("train"):
            raise ConfigError(
                "data.train_dir: is missing (or data.train_shards or data.train_dataset); set data.train_dir=VALUE"
            )
        for part in ("train", "val"):
            given = self._given(part)
            _require(len(given) <= 1, f"only one of {', '.join(given)} can be used; set the others to null")
            lr_dir = getattr(self, f"{part}_lr_dir")
            _require(
                lr_dir is None or given == [f"{part}_dir"],
                f"{part}_lr_dir needs the HR images of its pairs; set {part}_dir",
            )
        if self.train_lr_dir is not None:
            _require(
                not self.has_validation or self.val_lr_dir is not None,
                "train_lr_dir trains on pairs, but validation has none; set val_dir and val_lr_dir, or leave out both",
            )
            _require(not self.degradation, "degradation is not used with train_lr_dir; leave it out")
            _require(self.degrade_on == "loader", "degrade_on: device does nothing with train_lr_dir; leave it out")

    def _given(self, part: str) -> list[str]:
        names = [f"{part}_{kind}" for kind in ("dir", "shards", "dataset")]
        return [name for name in names if getattr(self, name) is not None]

    @property
    def has_validation(self) -> bool:
        """Whether there are held-out images."""
        return bool(self._given("val"))

    def degradation_config(self) -> DegradationConfig:
        """The preset with the changes applied."""
        preset = DEGRADATION_PRESETS[self.preset]
        return build(DegradationConfig, merged(asdict(preset), self.degradation), "data.degradation")

    def training_degradation(self) -> dict[DegradationConfig, float]:
        """What training samples draw from, with the shares."""
        if not self.degradation_mix:
            return {self.degradation_config(): 1.0}
        return {DEGRADATION_PRESETS[name]: share for name, share in self.degradation_mix.items()}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
