"""Checks before the first step: what would fail late fails here, with one line."""

from __future__ import annotations

import torch

from trainer.config import TrainConfig
from trainer.data.sources.opening import training_source, validation_source
from trainer.initial_weights import initial_pipeline
from trainer.losses.terms import LPIPSLoss, PerceptualLoss
from trainer.losses.vgg_features import VGGFeatureLoss
from trainer.output.export import load_sr_net
from trainer.output.tracking import check_trackers
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, UNWScheduler, UPSRUNet
from upsr_core.degradation.degrading import Degradation


def preflight(config: TrainConfig) -> None:
    """Raise ConfigError for what can be known to fail before any training."""
    check_trackers(config)
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("mixed_precision: fp16 needs a CUDA device; use no or bf16")
    check_data(config)
    _check_networks(config)
    for stage in config.stages:
        load_perceptual(config, stage)
    if config.init_from is not None:
        initial_pipeline(config)
    if config.stage == "unet" and (config.init_from is None or config.sr_net_from is not None):
        load_sr_net(config.sr_net_folder)


def load_perceptual(config: TrainConfig, stage: str) -> PerceptualLoss | None:
    """The distance of a stage's perceptual term, if it has a weight.

    Raises:
        ConfigError: the package or the backbone's weights are missing.
    """
    training = config.training(stage)
    key, weight = f"{stage}_training.perceptual_weight", training.perceptual_weight
    if weight == 0:
        return None
    try:
        return LPIPSLoss() if training.perceptual == "lpips-vgg" else VGGFeatureLoss()
    except FileNotFoundError as error:
        raise ConfigError(f"{stage}_training.perceptual: {error}") from error
    except ImportError as error:
        raise ConfigError(f'{key} {weight} needs the lpips package ({error}); pip install "upsr[train]"') from error
    except OSError as error:
        raise ConfigError(
            f"{key} {weight} needs torchvision's VGG weights, which are not in {torch.hub.get_dir()} and can "
            f"not be downloaded ({error}); set {stage}_training.perceptual=vgg-features, which needs no download"
        ) from error


def check_data(config: TrainConfig) -> None:
    """Raise ConfigError for images, sizes and degradations that can not be trained on."""
    data = config.data
    train, val = (open_source(data, config.scale, check=True) for open_source in (training_source, validation_source))
    least = Degradation(data.degradation_config(), config.scale).min_hr_size
    for key, size, source in (("data.hr_size", data.hr_size, train), ("data.val_size", data.val_size, val)):
        paired = source is not None and source.paired
        smallest = config.scale if paired else least
        if size < smallest or size % config.scale:
            raise ConfigError(
                f"{key} {size} must be a multiple of scale {config.scale} and at least {smallest}"
                + ("" if paired else " (for this degradation)")
            )
    for stage in config.stages:
        batch_size = config.training(stage).batch_size
        if 0 < data.pool_size < batch_size:
            raise ConfigError(f"data.pool_size {data.pool_size} must be 0 or at least the batch size {batch_size}")


def _check_networks(config: TrainConfig) -> None:
    """Build everything once on the meta device, where it costs nothing."""
    try:
        UNWScheduler(**config.scheduler)
    except ValueError as error:
        raise ConfigError(f"scheduler: {error}") from error
    for cls, key, arguments in (
        (ATDModel, "sr_net", config.sr_net_arguments),
        (UPSRUNet, "unet", config.unet_arguments),
    ):
        try:
            with torch.device("meta"):
                cls(**arguments)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from error
