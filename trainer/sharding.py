"""Weights that several processes share out (FSDP 2), and which ways of launching this trainer knows."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.config import TrainConfig
from trainer.typed_yaml import ConfigError

_WHOLE_NETWORKS = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
    DistributedType.MULTI_NPU,
)


def check_launch(accelerator: Accelerator, config: TrainConfig) -> None:
    """Refuse what would train another way than asked for, or save what cannot be resumed.

    Raises:
        ConfigError: processes that know nothing of each other, or neither a single one, nor DDP, nor FSDP 2.
    """
    kind = accelerator.distributed_type
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != accelerator.num_processes:
        raise ConfigError(
            f"accelerate launch: {started} processes were started, but each trains alone, for want of GPUs; to train "
            "together on CPUs set ACCELERATE_USE_CPU=true in the environment, else start one: --num_processes 1"
        )
    if kind == DistributedType.FSDP:
        version = getattr(accelerator.state.fsdp_plugin, "fsdp_version", 1)
        if version != 2:
            raise ConfigError(f"accelerate launch: FSDP version {version} is not supported; add --fsdp_version 2")
        if config.channels_last:
            raise ConfigError("channels_last: FSDP cannot shard weights in this format; set channels_last=false")
        for key in ("adversarial_weight", "own_states"):
            if getattr(config.unet_training, key):
                raise ConfigError(f"unet_training.{key}: not with FSDP; use --multi_gpu, or set it to 0")
    elif kind not in _WHOLE_NETWORKS:
        raise ConfigError(f"accelerate launch: {kind.value} is not supported; use --multi_gpu, or --use_fsdp")
    elif os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError(
            f"accelerate launch: --use_fsdp does nothing for {kind.value}, with {accelerator.num_processes} processes "
            f"on {accelerator.device.type}; leave it out, or start several processes on GPUs"
        )


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, of which each process may hold a part; then every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_whole(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy ``value``, which every process has all of, into ``target``, of which each may hold a part."""
    if isinstance(target, DTensor):
        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)
