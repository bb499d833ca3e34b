"""The parts of a run, built once before the first step, where a part that cannot be built is one line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import nn

from trainer.config import TrainConfig
from trainer.data.sources.opening import Images, open_images
from trainer.losses.adversarial import Discriminator
from trainer.losses.perceptual import LPIPSLoss, PerceptualLoss, STLPIPSLoss
from trainer.losses.vgg_features import VGGFeatureLoss
from trainer.output.checkpointing import architecture, check_same_architecture
from trainer.output.export import load_sr_net
from trainer.output.tracking import check_trackers
from trainer.stages import DenoiserStage, SRNetStage, TrainingStage
from trainer.typed_yaml import ConfigError
from upsr_core import UNWScheduler, UPSRPipeline, UPSRUNet, load_pipeline
from upsr_core.degradation.degrading import Degradation
from upsr_core.models import SRNet
from upsr_core.published.conversion import convert_pair

logger = logging.getLogger("trainer")

T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)
PERCEPTUAL: dict[str, Callable[[], PerceptualLoss]] = {
    "lpips-vgg": LPIPSLoss,
    "st-lpips-vgg": STLPIPSLoss,
    "vgg-features": VGGFeatureLoss,
}


@dataclass
class Preparation:
    """The parts of a run.

    Attributes:
        config: the whole run.
        images: to train and to validate on.
        networks: those that are trained, by stage, with their initial weights.
        perceptual: distance of each stage's perceptual term; None where it has no weight.
        scheduler: of the diffusion.
        sr_net: the frozen g of the denoiser's stage, if this run does not train it.
    """

    config: TrainConfig
    images: Images
    networks: dict[str, SRNet | UPSRUNet]
    perceptual: dict[str, PerceptualLoss | None]
    scheduler: UNWScheduler
    sr_net: SRNet | None = None

    def stage(self, name: str) -> TrainingStage[Any]:
        """A network with all that its losses need; its initial weights are handed over, so this works once.

        Raises:
            ConfigError: the denoiser's stage finds no g.
        """
        network = self.networks.pop(name)
        if not isinstance(network, UPSRUNet):
            return SRNetStage(self.config, network, self.perceptual[name])
        sr_net = self.sr_net or load_frozen_sr_net(self.config)
        discriminator = None
        if self.config.unet_training.adversarial_weight:
            discriminator = build_seeded(Discriminator, {}, self.config.seed)
        return DenoiserStage(self.config, network, self.perceptual[name], sr_net, self.scheduler, discriminator)


def prepare(config: TrainConfig) -> Preparation:
    """Build the parts of a run.

    Raises:
        ConfigError: a part cannot be built; the line names the key.
    """
    check_trackers(config)
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("mixed_precision: fp16 needs a CUDA device; use no or bf16")
    images = prepare_images(config)
    scheduler = _built("scheduler", lambda: UNWScheduler(**config.scheduler))
    networks: dict[str, SRNet | UPSRUNet] = {}
    if "sr_net" in config.stages:
        networks["sr_net"] = _built(
            "sr_net" if config.conv_sr_net is None else "conv_sr_net",
            lambda: build_seeded(config.sr_net_class, config.sr_net_arguments, config.seed),
        )
    if "unet" in config.stages:
        networks["unet"] = unet = _built("unet", lambda: build_seeded(UPSRUNet, config.unet_arguments, config.seed))
        _check_crops(config, unet)
    perceptual = {name: load_perceptual(config, name) for name in config.stages}
    sr_net = None
    if config.init_from is not None:
        source = load_initial_weights(config, networks)
        sr_net = source.sr_net
        if "unet" in networks:
            _tell_of_another_diffusion(config, source.scheduler, scheduler)
    if "sr_net" in config.stages:
        sr_net = None
    elif sr_net is None or config.sr_net_from is not None:
        sr_net = load_frozen_sr_net(config)
    return Preparation(config, images, networks, perceptual, scheduler, sr_net)


def prepare_images(config: TrainConfig) -> Images:
    """Open the images and check that their sizes suit the degradation and the batches.

    Raises:
        ConfigError: images, sizes or degradations that cannot be trained on.
    """
    data, images = config.data, open_images(config.data, config.scale)
    for key, size, source, degradation in (
        ("data.hr_size", data.hr_size, images.train, data.training_degradation()),
        ("data.val_size", data.val_size, images.val, data.degradation_config()),
    ):
        paired = source is not None and source.paired
        smallest = config.scale if paired else Degradation(degradation, config.scale).min_hr_size
        if size < smallest or size % config.scale:
            raise ConfigError(
                f"{key} {size} must be a multiple of scale {config.scale} and at least {smallest}"
                + ("" if paired else " (for this degradation)")
            )
    for stage in config.stages:
        batch_size = config.training(stage).batch_size
        if 0 < data.pool_size < batch_size:
            raise ConfigError(f"data.pool_size {data.pool_size} must be 0 or at least the batch size {batch_size}")
    return images


def load_perceptual(config: TrainConfig, stage: str) -> PerceptualLoss | None:
    """The distance of a stage's perceptual term, if it has a weight.

    Raises:
        ConfigError: the package or the backbone's weights are missing, or the crops are too small for it.
    """
    training, key = config.training(stage), f"{stage}_training.perceptual"
    if training.perceptual_weight == 0:
        return None
    try:
        loss = PERCEPTUAL[training.perceptual]()
    except FileNotFoundError as error:
        raise ConfigError(f"{key}: {error}") from error
    except ImportError as error:
        raise ConfigError(f'{key}: lpips-vgg needs lpips ({error}); pip install "upsr[train]"') from error
    except OSError as error:
        raise ConfigError(
            f"{key}: lpips-vgg needs torchvision's VGG weights, which are not in {torch.hub.get_dir()} and "
            f"cannot be downloaded ({error}); set {key}=st-lpips-vgg, which needs no download"
        ) from error
    if config.data.hr_size < loss.min_size:
        size = f"data.hr_size {config.data.hr_size} must be at least {loss.min_size}"
        raise ConfigError(f"{size} for {key}={training.perceptual}")
    return loss


def build_seeded(cls: type[Module], arguments: dict[str, Any], seed: int) -> Module:
    """A network whose initial weights depend on the seed alone."""
    # torch's initialisers draw from the global generator only: its state is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(**arguments)


def load_initial_weights(config: TrainConfig, networks: dict[str, SRNet | UPSRUNet]) -> UPSRPipeline:
    """Fill the networks with the weights that ``config.init_from`` names.

    Returns:
        The pipeline it names, in float32 on the CPU.

    Raises:
        ConfigError: it cannot be loaded, or a network is of another architecture.
    """
    source = str(config.init_from)
    first, comma, second = source.partition(",")
    pipe = _built("init_from", lambda: convert_pair(first, second) if comma else load_pipeline(source))
    for name, network in networks.items():
        own = getattr(pipe, name)
        check_same_architecture(
            {**architecture(own), "dropout": None},
            {**architecture(network), "dropout": None},  # It changes no tensor.
            f"init_from {source}: its {name}",
            "use the configuration of that model",
        )
        network.load_state_dict(own.state_dict())
    if pipe.scale != config.scale:
        raise ConfigError(f"init_from {source}: has scale {pipe.scale}, the configuration {config.scale}")
    return pipe


def _tell_of_another_diffusion(config: TrainConfig, theirs: UNWScheduler, ours: UNWScheduler) -> None:
    """Say where the denoiser with these initial weights was trained for another diffusion than it is now."""
    changed = {key: value for key, value in theirs.config.items() if key[0] != "_" and value != ours.config.get(key)}
    if changed and PartialState().is_main_process:
        logger.warning(
            "init_from %s: was trained with another scheduler; to keep it, set %s",
            config.init_from, " ".join(f"scheduler.{key}={value}" for key, value in changed.items()),
        )  # fmt: skip


def load_frozen_sr_net(config: TrainConfig) -> SRNet:
    """The g that the denoiser is trained for, from its folder.

    Raises:
        ConfigError: there is none, it cannot be read, or it has another scale.
    """
    sr_net = load_sr_net(config.sr_net_folder)
    if (scale := sr_net.config["scale"]) != config.scale:
        raise ConfigError(f"{config.sr_net_folder}: has scale {scale}, the configuration {config.scale}")
    return sr_net


def _built(key: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def _check_crops(config: TrainConfig, unet: UPSRUNet) -> None:
    """Refuse crops that the denoiser cannot take or is not made for."""
    data, scale = config.data, config.scale
    unit = unet.lr_multiple
    for key, size in (("hr_size", data.hr_size), *((("val_size", data.val_size),) if data.has_validation else ())):
        if size // scale % unit:
            raise ConfigError(
                f"data.{key} / scale = {size // scale} must be a multiple of unet.window_size * 2^(levels - 1) = {unit}"
            )
    lr_size, image_size = data.hr_size // scale, unet.config["image_size"]
    if lr_size != image_size:
        raise ConfigError(f"unet.image_size {image_size} must be data.hr_size / scale = {lr_size}")
