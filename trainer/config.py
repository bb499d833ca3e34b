"""What a training run is told: a dataclass for each section of the file, and checks that need no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.data.config import DataConfig
from trainer.typed_yaml import apply_overrides, arguments_of, build, load_yaml
from upsr_core import ATDModel, UNWScheduler, UPSRUNet

STAGES = ("sr_net", "unet")
# Follow from `scale`, so that they can not disagree with it.
DERIVED = ("scale", "out_channels")


@dataclass(frozen=True)
class StageConfig:
    """How one network is trained.

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
        ema_decay: of the moving average of the weights, which is what is validated and exported.
        perceptual: distance of the perceptual term: ``lpips-vgg`` is the paper's; ``vgg-features`` needs no download,
            see `VGGFeatureLoss`, and its gradients are larger by two orders of magnitude.
        perceptual_weight: lambda of Eq. 9; 0 does without the perceptual term.
        best_metric: validation metric, averaged over the inputs, whose best weights are in ``model``. ``loss`` is the
            stage's own on the held-out photos; PSNR and SSIM would choose a denoiser that is hardly trained.
        timesteps: of the denoiser: ``all``, or only the ``last``, which is the noisiest, for a model that restores in
            one step; it is validated in one step, too.
        weight_edits: of the denoiser: share of samples whose noise weight is edited at random, as users do with a mask,
            so that this leaves no grain; 0 is the paper.
    """

    max_steps: int
    max_minutes: float | None = None
    batch_size: int = 16
    gradient_accumulation: int = 1
    lr: float = 1e-4
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_end: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    ema_decay: float = 0.999
    perceptual: Literal["lpips-vgg", "vgg-features"] = "lpips-vgg"
    perceptual_weight: float = 0.0
    best_metric: Literal["loss", "psnr", "ssim"] = "loss"
    timesteps: Literal["all", "last"] = "all"
    weight_edits: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "gradient_accumulation"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        # Before a list of so many indices becomes memory.
        _require(self.batch_size <= 65536, f"batch_size must be at most 65536, not {self.batch_size}")
        for name in ("lr_end", "warmup_steps", "weight_decay", "perceptual_weight"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("lr", "max_grad_norm", "max_minutes"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be above 0, not {value}")
        _require(0 <= self.ema_decay < 1, f"ema_decay must be in [0,1), not {self.ema_decay}")
        _require(0 <= self.weight_edits <= 1, f"weight_edits must be in [0,1], not {self.weight_edits}")


@dataclass(frozen=True)
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
        mixed_precision: what the networks compute in; the weights stay float32.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile: ``torch.compile`` the network that is trained; minutes at the start, faster steps after that.
        channels_last: keep images and convolution weights in the memory format that most devices compute faster in.
        tf32: multiply float32 matrices in TensorFloat-32 (11 bits) on NVIDIA GPUs that can; degradations never do.
        trackers: where losses, rates and images go, beside the log; W&B takes WANDB_MODE, WANDB_PROJECT and so on.
        log_every: optimiser steps between two lines of the log.
        validate_every: optimiser steps between validations with sample images; 0 only at the end.
        checkpoint_every: optimiser steps between checkpoints; 0 only at the end.
        checkpoints_total_limit: newest checkpoints that are kept in each stage; None keeps all.
        sr_net, unet, scheduler: arguments of `ATDModel`, `UPSRUNet` and `UNWScheduler`.
        sr_net_training, unet_training: how each is trained.
    """

    output_dir: Path
    data: DataConfig
    sr_net_training: StageConfig
    unet_training: StageConfig
    stage: Literal["sr_net", "unet", "both"] = "both"
    sr_net_from: Path | None = None
    init_from: str | None = None
    scale: int = 4
    seed: int = 0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False
    channels_last: bool = True
    tf32: bool = False
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    checkpoints_total_limit: int | None = 2
    sr_net: dict[str, Any] = field(default_factory=dict, metadata=arguments_of(ATDModel, without=DERIVED))
    unet: dict[str, Any] = field(default_factory=dict, metadata=arguments_of(UPSRUNet, without=DERIVED))
    scheduler: dict[str, Any] = field(default_factory=dict, metadata=arguments_of(UNWScheduler))

    def __post_init__(self) -> None:
        _require(self.scale in (1, 2, 4, 8), f"scale must be 1, 2, 4 or 8, not {self.scale}")
        for name in ("seed", "validate_every", "checkpoint_every"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, not {getattr(self, name)}")
        _require(len(set(self.trackers)) == len(self.trackers), f"trackers names one twice: {', '.join(self.trackers)}")
        _require(self.log_every >= 1, f"log_every must be at least 1, not {self.log_every}")
        limit = self.checkpoints_total_limit
        _require(limit is None or limit >= 1, f"checkpoints_total_limit must be at least 1 or null, not {limit}")
        _require(
            self.sr_net_training.timesteps == "all",
            "sr_net_training.timesteps: the SR network has no timesteps; set unet_training.timesteps",
        )
        _require(
            self.sr_net_training.weight_edits == 0,
            "sr_net_training.weight_edits: the SR network has no noise; set unet_training.weight_edits",
        )
        self._check_crops()

    def _check_crops(self) -> None:
        data, lr_size = self.data, self.data.hr_size // self.scale
        _require(
            data.hr_size > 0 and data.hr_size % self.scale == 0,
            f"data.hr_size {data.hr_size} must be a multiple of scale {self.scale}",
        )
        if "unet" in self.stages:
            arguments = self.unet_arguments
            levels = len(arguments.get("channel_mult", (1, 2, 2, 4)))
            unit = arguments.get("window_size", 8) * 2 ** (levels - 1)
            _require(
                lr_size % unit == 0,
                f"data.hr_size / scale = {lr_size} must be a multiple of unet.window_size * 2^(levels - 1) = {unit}",
            )
            image_size = arguments.get("image_size", 64)
            _require(
                lr_size == image_size,
                f"unet.image_size {image_size} must be data.hr_size / scale = {lr_size}",
            )

    @property
    def stages(self) -> tuple[str, ...]:
        """The networks to train, in order."""
        return STAGES if self.stage == "both" else (self.stage,)

    @property
    def sr_net_arguments(self) -> dict[str, Any]:
        """All arguments for `ATDModel`."""
        return {"scale": self.scale, **self.sr_net}

    @property
    def unet_arguments(self) -> dict[str, Any]:
        """All arguments for `UPSRUNet`."""
        return {"scale": self.scale, **self.unet}

    @property
    def sr_net_folder(self) -> Path:
        """Where the denoiser's stage finds its g."""
        return self.sr_net_from or self.output_dir / "model"

    def training(self, stage: str) -> StageConfig:
        """How the network ``stage`` is trained."""
        return {"sr_net": self.sr_net_training, "unet": self.unet_training}[stage]


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply ``key.sub=value`` overrides to it.

    Raises:
        ConfigError: with one line that names the file or the key.
    """
    return build(TrainConfig, apply_overrides(load_yaml(path), overrides))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
