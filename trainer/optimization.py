"""The optimiser and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.config import NetworkTrainingConfig


def make_optimizer(network: nn.Module, config: NetworkTrainingConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW for a network on ``device``."""
    # The fused implementation is several times faster on CPU, too.
    fused = device.type in ("cpu", "cuda")
    return torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def learning_rate(config: NetworkTrainingConfig, step: int) -> float:
    """Learning rate of optimiser step ``step``, counted from 0: linear warm-up, then constant or a cosine."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    share = config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return config.lr * share
