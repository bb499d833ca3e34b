"""Configuration of a training run: a dataclass for each section of the file, and checks that need no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from trainer.data.config import DataConfig, UserPath
from trainer.losses.detail import DETAIL_TERMS, MIN_SIZE
from trainer.typed_yaml import STRICT, apply_overrides, arguments_of, build, load_yaml
from upsr_core import ATDModel, ConvSRModel, UNWScheduler, UPSRUNet
from upsr_core.models import SRNet

STAGES = ("sr_net", "unet")
# Follow from `scale`, so that they cannot disagree with it.
DERIVED = ("scale", "out_channels")


@dataclass(frozen=True, config=STRICT)
class NetworkTrainingConfig:
    """Training of one network.

    Attributes:
        max_steps: optimiser steps.
        max_minutes: wall-clock limit of one run; the stage ends early but properly. None is no limit.
        batch_size: images per process and micro-step.
        gradient_accumulation: micro-steps per optimiser step.
        lr: AdamW's learning rate after the warm-up.
        lr_schedule: ``constant``, or ``cosine`` down to ``lr_end`` at ``max_steps``.
        lr_end: last learning rate of the cosine, as a share of ``lr``.
        warmup_steps: steps over which the learning rate grows linearly from 0.
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to this norm; None never.
        ema_decay: of the moving average of the weights; the averages are validated and exported.
        perceptual: distance of the perceptual term: ``lpips-vgg`` is the paper's; ``st-lpips-vgg`` and
            ``vgg-features`` need no download, see `STLPIPS` and `VGGFeatureLoss`; the gradients of the last are larger
            by two orders of magnitude.
        perceptual_weight: lambda of Eq. 9; 0 does without the perceptual term.
        adversarial_weight: of the denoiser: weight of the adversarial term, see `adversarial_losses`; its discriminator
            judges by the features of perceptual=vgg-features. 0 is the paper.
        missing_detail_weight, excess_detail_weight, grid_weight: of the denoiser: weights of the terms that
            `detail_distances` gives; 0 is the paper.
        best_metric: validation metric, averaged over the inputs, whose best weights are in ``model``. ``loss`` is the
            stage's own on the held-out photos; PSNR and SSIM would choose a denoiser that is hardly trained.
        own_states: of the denoiser: share of samples whose last step starts from the state that the network's own
            earlier steps produce, as in sampling. Trained on noised photos alone, it mistakes errors of its earlier
            steps for detail. 0 is the paper.
        weight_edits: of the denoiser: share of samples whose noise weight is edited at random, as users do with a mask,
            so that this leaves no grain; 0 is the paper.
    """

    max_steps: PositiveInt
    max_minutes: PositiveFloat | None = None
    batch_size: int = Field(default=16, ge=1, le=65536)  # larger lists of indices would fill the memory
    gradient_accumulation: PositiveInt = 1
    lr: PositiveFloat = 1e-4
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_end: NonNegativeFloat = 0.0
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat | None = None
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    perceptual: Literal["lpips-vgg", "st-lpips-vgg", "vgg-features"] = "lpips-vgg"
    perceptual_weight: NonNegativeFloat = 0.0
    adversarial_weight: NonNegativeFloat = 0.0
    missing_detail_weight: NonNegativeFloat = 0.0
    excess_detail_weight: NonNegativeFloat = 0.0
    grid_weight: NonNegativeFloat = 0.0
    best_metric: Literal["loss", "psnr", "ssim"] = "loss"
    own_states: float = Field(default=0.0, ge=0, le=1)
    weight_edits: float = Field(default=0.0, ge=0, le=1)

    @property
    def added_terms(self) -> str:
        """The weighted terms that are added to the loss, in words."""
        weights = {self.perceptual: self.perceptual_weight, "adversarial": self.adversarial_weight}
        weights |= self.detail_weights
        terms = [f"{weight:g} {name.replace('_', ' ')}" for name, weight in weights.items() if weight]
        return " + ".join(terms) or "no perceptual term"

    @property
    def detail_weights(self) -> dict[str, float]:
        """The weights of `DETAIL_TERMS`, but for those that are 0."""
        weights = {name: getattr(self, f"{name}_weight") for name in DETAIL_TERMS}
        return {name: weight for name, weight in weights.items() if weight}


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """A whole run.

    Attributes:
        output_dir: for ``model`` (the best), ``model_last``, ``checkpoints``, ``samples`` and ``logs``; where several
            machines train together, a folder that all of them see.
        stage: ``sr_net`` trains g, ``unet`` the denoiser for a g that exists, ``both`` one after the other.
        sr_net_from: folder of the g that the denoiser is trained for, or of a pipeline with it; None for
            ``output_dir/model``.
        init_from: what to start from instead of random weights: a model folder, a Hub repository id, or a published
            pair ``DENOISER.pth,SR_NET.pth``. Its networks must be those of the configuration. With stage ``unet`` its g
            is the one trained for, unless ``sr_net_from`` names another.
        scale: super-resolution factor s.
        seed: decides the initial weights, the order of the images, crops, degradations, noise and timesteps.
        mixed_precision: type that the networks compute in; the weights stay float32.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile: ``torch.compile`` the network that is trained; minutes at the start, faster steps after that.
        channels_last: keep images and convolution weights in the memory format that most devices compute faster in.
        tf32: multiply float32 matrices in TensorFloat-32 (11 bits) on NVIDIA GPUs that can; degradations never do.
        trackers: where losses, rates and images go, beside the log; W&B takes WANDB_MODE, WANDB_PROJECT and so on.
        log_every: optimiser steps between two lines of the log.
        validate_every: optimiser steps between validations with sample images; 0 only at the end.
        checkpoint_every: optimiser steps between checkpoints; 0 only at the end.
        checkpoints_total_limit: newest checkpoints that are kept in each stage; None keeps all.
        sr_net, unet, scheduler: arguments of `ATDModel`, `UPSRUNet` and `UNWScheduler`. The denoiser is trained for the
            timesteps of ``scheduler.default_inference_steps`` alone, where it is set.
        conv_sr_net: arguments of `ConvSRModel`, which then takes the place of `ATDModel`; instead of sr_net.
        sr_net_training, unet_training: how each is trained.
    """

    output_dir: UserPath
    data: DataConfig
    sr_net_training: NetworkTrainingConfig
    unet_training: NetworkTrainingConfig
    stage: Literal["sr_net", "unet", "both"] = "both"
    sr_net_from: UserPath | None = None
    init_from: str | None = None
    scale: Literal[1, 2, 4, 8] = 4
    seed: NonNegativeInt = 0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = True
    tf32: bool = False
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    log_every: PositiveInt = 50
    validate_every: NonNegativeInt = 1000
    checkpoint_every: NonNegativeInt = 1000
    checkpoints_total_limit: PositiveInt | None = 2
    sr_net: Annotated[dict[str, Any], arguments_of(ATDModel, without=DERIVED)] = Field(default_factory=dict)
    conv_sr_net: Annotated[dict[str, Any], arguments_of(ConvSRModel, without=DERIVED)] | None = None
    unet: Annotated[dict[str, Any], arguments_of(UPSRUNet, without=DERIVED)] = Field(default_factory=dict)
    scheduler: Annotated[dict[str, Any], arguments_of(UNWScheduler)] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.trackers)) != len(self.trackers):
            raise ValueError(f"trackers names one twice: {', '.join(self.trackers)}")
        if self.sr_net and self.conv_sr_net is not None:
            raise ValueError(
                "conv_sr_net: sr_net is set, too; g is one or the other, so set sr_net={} or conv_sr_net=null"
            )
        if self.sr_net_from is not None and self.stage == "both":
            raise ValueError("sr_net_from: stage both trains a g of its own; set stage=unet, or sr_net_from=null")
        for key in ("own_states", "weight_edits"):
            if getattr(self.sr_net_training, key):
                raise ValueError(f"sr_net_training.{key}: the SR network has no noise; set unet_training.{key}")
        for key in ("adversarial_weight", *(f"{name}_weight" for name in DETAIL_TERMS)):
            if getattr(self.sr_net_training, key):
                raise ValueError(
                    f"sr_net_training.{key}: uncertainty is measured by a network of the least error; set "
                    f"unet_training.{key}"
                )
        unet = self.unet_training
        if unet.own_states and self.scheduler.get("default_inference_steps") == 1:
            raise ValueError(
                "unet_training.own_states: there are no earlier steps with scheduler.default_inference_steps=1; set "
                "one of them"
            )
        if unet.adversarial_weight and (unet.perceptual != "vgg-features" or not unet.perceptual_weight):
            raise ValueError(
                "unet_training.adversarial_weight: the discriminator judges by the features of another term; set "
                "unet_training.perceptual=vgg-features and a unet_training.perceptual_weight"
            )
        for name in unet.detail_weights:
            for key in ("hr_size", "val_size"):
                if getattr(self.data, key) < MIN_SIZE:
                    size = f"data.{key} {getattr(self.data, key)} must be at least {MIN_SIZE}"
                    raise ValueError(f"{size} for unet_training.{name}_weight")
        if self.data.hr_size % self.scale:
            raise ValueError(f"data.hr_size {self.data.hr_size} must be a multiple of scale {self.scale}")

    @property
    def stages(self) -> tuple[str, ...]:
        """The networks to train, in order."""
        return STAGES if self.stage == "both" else (self.stage,)

    @property
    def sr_net_arguments(self) -> dict[str, Any]:
        """All arguments for `sr_net_class`."""
        return {"scale": self.scale, **(self.sr_net if self.conv_sr_net is None else self.conv_sr_net)}

    @property
    def sr_net_class(self) -> type[SRNet]:
        """The class of g."""
        return ATDModel if self.conv_sr_net is None else ConvSRModel

    @property
    def unet_arguments(self) -> dict[str, Any]:
        """All arguments for `UPSRUNet`."""
        return {"scale": self.scale, **self.unet}

    @property
    def sr_net_folder(self) -> Path:
        """Folder in which the denoiser's stage finds its g."""
        return self.sr_net_from or self.output_dir / "model"

    def training(self, stage: str) -> NetworkTrainingConfig:
        """Training of the network ``stage``."""
        return {"sr_net": self.sr_net_training, "unet": self.unet_training}[stage]


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key.sub=value`` overrides to it.

    Raises:
        ConfigError: with one line that names the file or the key.
    """
    return build(TrainConfig, apply_overrides(load_yaml(path), overrides))
