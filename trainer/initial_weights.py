"""Fine-tuning: networks to start from, which must be of the configured architecture."""

from __future__ import annotations

from typing import Any

import torch

from trainer.config import TrainConfig
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, UPSRPipeline, UPSRUNet, load_pipeline
from upsr_core.published.conversion import convert_pair

# Can differ between what was trained and what goes on: they change no tensor and no output.
IRRELEVANT = ("dropout",)


def initial_pipeline(config: TrainConfig) -> UPSRPipeline:
    """What ``config.init_from`` names, in float32 on the CPU.

    Raises:
        ConfigError: it can not be loaded, or a network that is to be trained is of another architecture.
    """
    source = str(config.init_from)
    first, comma, second = source.partition(",")
    try:
        pipe = convert_pair(first, second) if comma else load_pipeline(source)
    except ValueError as error:
        raise ConfigError(f"init_from: {error}") from error
    networks: dict[str, tuple[Any, type[ATDModel | UPSRUNet], dict[str, Any]]] = {
        "sr_net": (pipe.sr_net, ATDModel, config.sr_net_arguments),
        "unet": (pipe.unet, UPSRUNet, config.unet_arguments),
    }
    for name in config.stages:
        network, cls, arguments = networks[name]
        _check_architecture(network, cls, arguments, f"init_from {source}: its {name}")
    if pipe.scale != config.scale:
        raise ConfigError(f"init_from {source}: has scale {pipe.scale}, the configuration {config.scale}")
    return pipe


def _check_architecture(
    network: ATDModel | UPSRUNet, cls: type[ATDModel | UPSRUNet], arguments: dict[str, Any], what: str
) -> None:
    with torch.device("meta"):
        wanted = cls(**arguments).config
    for key, value in wanted.items():
        if key.startswith("_") or key in IRRELEVANT:
            continue
        # Tuples come back from a file as lists.
        own, value = (list(item) if isinstance(item, (tuple, list)) else item for item in (network.config[key], value))
        if own != value:
            raise ConfigError(f"{what} has {key} {own}, the configuration {value}; use the configuration of that model")
