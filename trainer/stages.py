"""The two networks as things to train: how each is built, and its losses on a batch."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from trainer.config import TrainConfig
from trainer.losses import LPIPSLoss
from upsr_core import ATDModel, UNWScheduler, UPSRUNet
from upsr_core.uncertainty import uncertainty, upsample

Losses = dict[str, torch.Tensor]
Network = TypeVar("Network", ATDModel, UPSRUNet)


class Stage(Protocol):
    """The training of one network. ``name`` is the network's in the pipeline."""

    name: str

    def build_model(self) -> ATDModel | UPSRUNet:
        """The network with its initial weights."""
        ...

    def losses(self, model: nn.Module, lr: torch.Tensor, hr: torch.Tensor, generator: torch.Generator) -> Losses:
        """Scalar losses of a batch; ``"loss"`` is the one to minimise.

        Args:
            model: what `build_model` gave, perhaps wrapped for distributed training.
            lr, hr: (B,3,h,w) and (B,3,s*h,s*w) in [0,1].
            generator: on the CPU, so that every kind of device draws the same.
        """
        ...


class SRNetStage:
    """Training of g: L1 distance in [0,1] units, plus weighted LPIPS."""

    name = "sr_net"

    def __init__(self, config: TrainConfig, lpips: LPIPSLoss | None):
        self.config, self.lpips = config, lpips

    def build_model(self) -> ATDModel:
        """g with its initial weights."""
        return build_seeded(ATDModel, self.config.sr_net_arguments, self.config.seed)

    def losses(self, model: nn.Module, lr: torch.Tensor, hr: torch.Tensor, generator: torch.Generator) -> Losses:
        """``l1``, ``lpips`` where it is wanted, and ``loss``; see `Stage.losses`. Nothing is random here."""
        del generator
        sr = model(lr, return_dict=False)[0].float()
        losses = {"l1": F.l1_loss(sr, hr)}
        return _add_lpips(losses, self.lpips, self.config.sr_net_training.lpips_weight, 2 * sr - 1, 2 * hr - 1)


class DenoiserStage:
    """Training of the denoiser for a frozen g: mean squared error in [-1,1] units plus weighted LPIPS (Eq. 9)."""

    name = "unet"

    def __init__(self, config: TrainConfig, sr_net: ATDModel, scheduler: UNWScheduler, lpips: LPIPSLoss | None):
        self.config, self.scheduler, self.lpips = config, scheduler, lpips
        self.sr_net = sr_net.eval().requires_grad_(False)

    def build_model(self) -> UPSRUNet:
        """The denoiser with its initial weights."""
        return build_seeded(UPSRUNet, self.config.unet_arguments, self.config.seed)

    def losses(self, model: nn.Module, lr: torch.Tensor, hr: torch.Tensor, generator: torch.Generator) -> Losses:
        """``mse``, ``lpips`` where it is wanted, and ``loss``; see `Stage.losses`."""
        x0 = 2 * hr - 1
        t = torch.randint(self.scheduler.config.num_train_timesteps, (len(hr),), generator=generator)
        noise = torch.randn(hr.shape, generator=generator).to(hr.device)
        cond_channels = self.config.unet_arguments["cond_channels"]
        sample, condition = noisy_input(self.sr_net, self.scheduler, lr, x0, noise, t, cond_channels)
        estimate = model(sample, t.to(hr.device), condition, return_dict=False)[0].float()
        losses = {"mse": F.mse_loss(estimate, x0)}
        return _add_lpips(losses, self.lpips, self.config.unet_training.lpips_weight, estimate, x0)


@torch.no_grad()
def noisy_input(
    sr_net: ATDModel,
    scheduler: UNWScheduler,
    lr: torch.Tensor,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    cond_channels: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the denoiser sees of x0 at step t (Eq. 5 to 7). One pass of g serves the noise weight and the condition.

    Args:
        lr: (B,3,h,w) in [0,1].
        x0: (B,3,s*h,s*w) in [-1,1].
        noise: standard normal, shaped as x0.
        t: (B,) steps 0..T-1.
        cond_channels: of the denoiser: without the SR condition these are as many as the state's.

    Returns:
        The scaled state x_t (B,3*s*s,h,w) and the condition (B,cond_channels,h,w), both pixel-unshuffled.
    """
    scale = sr_net.config.scale
    sr = 2 * sr_net(lr, return_dict=False)[0].float() - 1
    upsampled = upsample(2 * lr - 1, scale)
    weight = scheduler.noise_weight(uncertainty(sr, upsampled))
    sample = scheduler.scale_model_input(scheduler.add_noise(x0, upsampled, noise, t, weight), t)
    with_sr = cond_channels > sample.shape[1] * scale**2
    condition = torch.cat([sr, upsampled], dim=1) if with_sr else upsampled
    return F.pixel_unshuffle(sample, scale), F.pixel_unshuffle(condition, scale)


def build_seeded(cls: type[Network], arguments: dict[str, Any], seed: int) -> Network:
    """A network whose initial weights depend on the seed alone, in the memory format that convolutions like best."""
    # torch's initialisers draw from the global generator only: its state is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(**arguments).to(memory_format=torch.channels_last)


def _add_lpips(
    losses: Losses, lpips: LPIPSLoss | None, weight: float, estimate: torch.Tensor, target: torch.Tensor
) -> Losses:
    """``losses`` (one so far) with ``"loss"``, the weighted sum; images in [-1,1]."""
    total = next(iter(losses.values()))
    if lpips is not None:
        losses["lpips"] = lpips(estimate, target)
        total = total + weight * losses["lpips"]
    return {"loss": total, **losses}
