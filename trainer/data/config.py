"""Configuration of a run's images and their degradation, with the checks that need no data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from trainer.typed_yaml import STRICT, ConfigError, build, merged
from upsr_core.degradation.config import DEGRADATION_PRESETS, DegradationConfig


def _known_preset(name: str) -> str:
    if name not in DEGRADATION_PRESETS:
        raise ValueError(f"must be one of {', '.join(DEGRADATION_PRESETS)}, not {name!r}")
    return name


def _weighted(folders: Any) -> Any:
    return {folders: 1.0} if isinstance(folders, str | Path) else folders


UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
WeightedFolders = Annotated[dict[UserPath, PositiveFloat] | None, BeforeValidator(_weighted)]
Preset = Annotated[str, AfterValidator(_known_preset)]


@dataclass(frozen=True, config=STRICT)
class DatasetConfig:
    """A Hugging Face dataset with a column of images.

    Attributes:
        path: repository id on the Hub, or a folder that ``save_to_disk`` has written.
        split: the part of it; None for a folder that holds no parts.
        name: the configuration of the Hub's dataset, where it has several.
        image_column: the column.
    """

    path: str
    split: str | None = None
    name: str | None = None
    image_column: str = "image"


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """The images of a run and their degradation.

    Training takes exactly one of ``train_dir``, ``train_shards`` and ``train_dataset``; validation at most one of its
    three, and without any there is none.

    Attributes:
        train_dir: folder of HR images, searched with its subfolders; or several with weights, such as
            ``{photos: 3, textures: 1}``, of which each gives its share of the training samples.
        val_dir: folder of HR images that are held out.
        train_lr_dir, val_lr_dir: folder of LR images with the names of those in ``train_dir`` or ``val_dir``; such
            pairs are used as they are, without degradation.
        train_shards, val_shards: WebDataset tar files: one, a folder of them, or several such as
            ``photos-{000..146}.tar`` or ``*.tar``.
        train_dataset, val_dataset: Hugging Face dataset.
        hr_size: side in pixels of the random HR crops; LR is ``hr_size / scale``.
        preset: the degradation, see `upsr_core.degradation.config`.
        degradation: changes to the preset, keyed as `DegradationConfig`.
        degradation_mix: shares of several presets, such as ``{bicubic: 0.2, mild: 0.4, upsr: 0.4}``, instead of
            ``preset``; each training sample draws one. Validation degrades with ``preset``.
        shrink: smallest factor that an HR photo is reduced by before it is cropped, in (0,1]; each crop draws its own
            from there to 1. JPEG traces shrink with the photo.
        lettering: share of the HR crops that words, signs and bars are drawn on, in [0,1].
        fonts: folder of the fonts for it, searched with its subfolders; null takes the one that Pillow brings.
        degrade_on: make the LR crops where the images are read (``loader``) or on the training device.
        pool_size: LR-HR pairs that a process keeps and shuffles across batches; 0 takes batches as they come.
        cache: decode all photos once and keep them in memory, for small folders.
        num_workers: processes that read and degrade beside the training process; 0 does it in between.
        val_size: side in HR pixels of the centre crops that are validated.
        val_images: largest number of held-out images that are validated.
    """

    train_dir: WeightedFolders = None
    train_lr_dir: UserPath | None = None
    train_shards: str | None = None
    train_dataset: DatasetConfig | None = None
    val_dir: UserPath | None = None
    val_lr_dir: UserPath | None = None
    val_shards: str | None = None
    val_dataset: DatasetConfig | None = None
    hr_size: PositiveInt = 256
    preset: Preset = "upsr"
    degradation: dict[str, Any] = Field(default_factory=dict)
    degradation_mix: dict[Preset, PositiveFloat] = Field(default_factory=dict)
    shrink: float = Field(default=1.0, gt=0, le=1)
    lettering: float = Field(default=0.0, ge=0, le=1)
    fonts: UserPath | None = None
    degrade_on: Literal["loader", "device"] = "loader"
    pool_size: NonNegativeInt = 0
    cache: bool = False
    num_workers: NonNegativeInt = 0
    val_size: PositiveInt = 256
    val_images: PositiveInt = 20

    def __post_init__(self) -> None:
        if self.degradation_mix and self.degradation:
            raise ValueError("degradation changes one preset and cannot be used with degradation_mix; leave out one")
        if self.fonts is not None and not self.lettering:
            raise ValueError("fonts does nothing without lettering; set lettering, or leave it out")
        self._check_sources()
        self.degradation_config()

    def _check_sources(self) -> None:
        if not self._given("train"):
            raise ConfigError(
                "data.train_dir: is missing (or data.train_shards or data.train_dataset); set data.train_dir=VALUE"
            )
        for part in ("train", "val"):
            given = self._given(part)
            if len(given) > 1:
                raise ValueError(f"only one of {', '.join(given)} can be used; set the others to null")
            if getattr(self, f"{part}_lr_dir") is not None and given != [f"{part}_dir"]:
                raise ValueError(f"{part}_lr_dir needs the HR images of its pairs; set {part}_dir")
        if self.train_lr_dir is None:
            return
        if self.train_dir is not None and len(self.train_dir) > 1:
            raise ValueError("train_lr_dir needs the one folder with the HR images of its pairs in train_dir")
        if self.has_validation and self.val_lr_dir is None:
            raise ValueError(
                "train_lr_dir trains on pairs, but validation has none; set val_dir and val_lr_dir, or leave out both"
            )
        unused = {"degradation": {}, "degradation_mix": {}, "degrade_on": "loader", "shrink": 1, "lettering": 0}
        for name, value in unused.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} does nothing with train_lr_dir; leave it out")

    def _given(self, part: str) -> list[str]:
        names = [f"{part}_{kind}" for kind in ("dir", "shards", "dataset")]
        return [name for name in names if getattr(self, name) is not None]

    @property
    def has_validation(self) -> bool:
        """Whether there are held-out images."""
        return bool(self._given("val"))

    @property
    def degradation_name(self) -> str:
        """Degradation of the training samples, in words."""
        if self.train_lr_dir is not None:
            return "none, pairs"
        name = self.preset + (", changed" if self.degradation else "")
        if self.degradation_mix:
            name = " + ".join(f"{share:g} {name}" for name, share in self.degradation_mix.items())
        return name + (f", lettering on {self.lettering:.0%} of the crops" if self.lettering else "")

    def degradation_config(self) -> DegradationConfig:
        """The preset with the changes applied."""
        content = merged(asdict(DEGRADATION_PRESETS[self.preset]), self.degradation)
        return build(_Resolved, {"degradation": content}, "data").degradation

    def training_degradation(self) -> dict[DegradationConfig, float]:
        """Degradations that training samples draw from, with their shares."""
        if not self.degradation_mix:
            return {self.degradation_config(): 1.0}
        return {DEGRADATION_PRESETS[name]: share for name, share in self.degradation_mix.items()}


@dataclass(frozen=True, config=STRICT)
class _Resolved:
    degradation: DegradationConfig
