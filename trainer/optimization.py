"""The optimiser and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from trainer.config import NetworkTrainingConfig

# Of the denoiser's learning rate. The discriminator has to follow what the denoiser, which begins trained, has learned.
DISCRIMINATOR_RATE = 3.0
DISCRIMINATOR_BETAS = (0.5, 0.99)


def make_optimizer(
    network: nn.Module, config: NetworkTrainingConfig, device: torch.device, discriminator: nn.Module | None = None
) -> torch.optim.AdamW:
    """AdamW for a network on ``device``, and for the discriminator that is trained beside it."""
    groups: list[dict[str, Any]] = [{"params": network.parameters()}]
    if discriminator is not None:
        groups.append({"params": discriminator.parameters(), "betas": DISCRIMINATOR_BETAS})
    # The fused implementation is several times faster on CPU, too.
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the network's learning rate, and with it that of a discriminator in the same optimiser."""
    for group, share in zip(optimizer.param_groups, (1.0, DISCRIMINATOR_RATE), strict=False):
        group["lr"] = share * rate


def learning_rate(config: NetworkTrainingConfig, step: int) -> float:
    """Learning rate of optimiser step ``step``, counted from 0: linear warm-up, then constant or a cosine."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    share = config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.lr * share
