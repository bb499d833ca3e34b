"""Figures and images of a run in TensorBoard and Weights & Biases, beside its log."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, WandBTracker

from trainer.config import TrainConfig
from trainer.typed_yaml import ConfigError

_INSTALL = {"tensorboard": 'pip install "upsr[train]"', "wandb": "pip install wandb"}
_WANDB_PROJECT = "upsr"


def check_trackers(config: TrainConfig) -> None:
    """Raise ConfigError for a tracker whose package is missing."""
    for name in config.trackers:
        if importlib.util.find_spec(name) is None:
            others = ",".join(other for other in config.trackers if other != name)
            raise ConfigError(
                f"trackers: {name} is not installed; run: {_INSTALL[name]}, or do without: trackers=[{others}]"
            )


def make_trackers(config: TrainConfig, stage: str) -> list[str | GeneralTracker]:
    """The value of `Accelerator`'s ``log_with``.

    TensorBoard writes ``output_dir/logs/STAGE``, W&B one run for each stage and start.
    """
    trackers: list[str | GeneralTracker] = []
    for name in config.trackers:
        if name == "tensorboard":
            trackers.append(name)
        else:
            run = config.output_dir.resolve().name
            folder = config.output_dir / "logs"
            folder.mkdir(parents=True, exist_ok=True)
            project = os.environ.get("WANDB_PROJECT", _WANDB_PROJECT)
            trackers.append(WandBTracker(project, name=f"{run}-{stage}", group=run, job_type=stage, dir=str(folder)))
    return trackers


def start_trackers(accelerator: Accelerator, stage: str, config: dict[str, Any]) -> None:
    """Open them; ``config``, as it would be written to YAML, goes to those that show it.

    Raises:
        ConfigError: W&B refuses.
    """
    if "wandb" not in config["trackers"]:
        accelerator.init_trackers(stage)
        return
    import wandb  # an optional package

    try:
        accelerator.init_trackers(stage)
    except wandb.Error as error:
        raise ConfigError(f"trackers: wandb: {error} Or set WANDB_MODE=offline in the environment") from error
    for tracker in accelerator.trackers:
        if tracker.name == "wandb":
            tracker.store_init_configuration(config)


def log_image(accelerator: Accelerator, name: str, image: torch.Tensor, step: int) -> None:
    """Show (3,H,W) in [0,1] in all trackers."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({name: image[None].numpy()}, step=step, dataformats="NCHW")
        elif tracker.name == "wandb":
            tracker.log_images({name: [image.permute(1, 2, 0).numpy()]}, step=step)
