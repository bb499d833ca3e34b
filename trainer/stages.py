"""The training of each network: losses on a batch, validation and export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic

import torch
import torch.nn.functional as F
from torch import nn

from trainer.config import TrainConfig
from trainer.data.held_out import UpscaleBatch
from trainer.losses.adversarial import adversarial_losses, gather_evidence, magnitudes
from trainer.losses.detail import detail_distances
from trainer.losses.perceptual import PerceptualLoss
from trainer.losses.vgg_features import VGGFeatureLoss
from trainer.output.export import Network, export_pipeline, export_sr_net
from trainer.weight_edits import edit_weights
from upsr_core import UNWScheduler, UPSRPipeline, UPSRUNet
from upsr_core.models import SRNet, denoiser_input
from upsr_core.resampling import upsample
from upsr_core.uncertainty import uncertainty

Losses = dict[str, torch.Tensor]


class TrainingStage(ABC, Generic[Network]):
    """The training of one network.

    Args:
        config: the whole run.
        network: with its initial weights.
        perceptual: None where the perceptual term has no weight.
        discriminator: that is trained beside the network; None where there is no adversarial term.
    """

    name: ClassVar[str]
    """Name of the network in the pipeline."""
    method: ClassVar[str]
    """Name of the result in a validation."""

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        perceptual: PerceptualLoss | None,
        discriminator: nn.Module | None = None,
    ):
        self.config, self.perceptual, self.discriminator = config, perceptual, discriminator
        self.network: Network = network

    @abstractmethod
    def losses(
        self, model: nn.Module, lr: torch.Tensor, hr: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> Losses:
        """Scalar losses of a batch; ``"loss"`` is the one to minimise.

        Args:
            model: the network, perhaps wrapped for distributed training.
            lr, hr: (B,3,h,w) and (B,3,s*h,s*w) in [0,1].
            generators: one for each sample, on the CPU, so that every kind of device draws the same.
        """

    @abstractmethod
    def upscaler(self, network: Network) -> UpscaleBatch:
        """The upscaler to validate for these weights."""

    def references(self) -> dict[str, UpscaleBatch]:
        """Upscalers to validate once, beside bicubic upsampling, to compare with."""
        return {}

    @abstractmethod
    def export(self, folder: Path, network: Network) -> None:
        """Write the folder that others load."""

    def to(self, device: torch.device, memory_format: torch.memory_format) -> None:
        """Move all that the losses need; ``memory_format`` is that of the networks."""
        if self.perceptual is not None:
            self.perceptual.to(device)


class SRNetStage(TrainingStage[SRNet]):
    """Training of g: L1 distance in [0,1] units, plus weighted perceptual distance."""

    name, method = "sr_net", "g"

    def losses(
        self, model: nn.Module, lr: torch.Tensor, hr: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> Losses:
        """``l1``, ``perceptual`` where it has a weight, and ``loss``; see `TrainingStage.losses`. Nothing is random."""
        del generators
        sr = model(lr, return_dict=False)[0].float()
        losses = {"l1": F.l1_loss(sr, hr)}
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(2 * sr - 1, 2 * hr - 1)
        return _with_sum(losses, {"perceptual": self.config.sr_net_training.perceptual_weight})

    def upscaler(self, network: SRNet) -> UpscaleBatch:
        """g by itself."""
        return sr_upscaler(network)

    def export(self, folder: Path, network: SRNet) -> None:
        """g alone: there is no denoiser for it yet."""
        export_sr_net(folder, network)


class DenoiserStage(TrainingStage[UPSRUNet]):
    """Training of the denoiser for a frozen g: squared error in [-1,1] units plus weighted perceptual distance (Eq. 9).

    Beyond the paper, an adversarial term and distances of the strength of details may be added.

    Args:
        config, perceptual, discriminator: as for `TrainingStage`.
        network: the denoiser with its initial weights.
        sr_net: g, which is run once per batch.
        scheduler: of the diffusion. Only those timesteps are trained that it samples with by default.
    """

    name, method = "unet", "upsr"

    def __init__(
        self,
        config: TrainConfig,
        network: UPSRUNet,
        perceptual: PerceptualLoss | None,
        sr_net: SRNet,
        scheduler: UNWScheduler,
        discriminator: nn.Module | None = None,
    ):
        super().__init__(config, network, perceptual, discriminator)
        self.sr_net, self.scheduler = sr_net.eval().requires_grad_(False), scheduler
        self.sampler: UNWScheduler = UNWScheduler.from_config(scheduler.config)
        self.sampler.set_timesteps()

    def losses(
        self, model: nn.Module, lr: torch.Tensor, hr: torch.Tensor, generators: Sequence[torch.Generator]
    ) -> Losses:
        """``mse``, ``loss``, and of the other terms those that have weights, see `TrainingStage.losses`.

        With an adversarial term ``loss`` includes the ``discriminator``'s own.
        """
        x0 = 2 * hr - 1
        steps = self.sampler.timesteps.flip(0)
        t = steps[torch.cat([torch.randint(len(steps), (1,), generator=one) for one in generators])]
        noise = torch.stack([torch.randn(hr.shape[1:], generator=generator) for generator in generators]).to(hr.device)
        training = self.config.unet_training
        edit, own = None, None
        # Held-out images are scored as in the paper.
        if model.training and training.weight_edits:
            edit = partial(edit_weights, generators=generators, share=training.weight_edits)
        if model.training and training.own_states:
            chosen = torch.cat([torch.rand(1, generator=one) for one in generators]) < training.own_states
            t = t.masked_fill(chosen, steps[0])
            own = partial(self._with_own_states, chosen.to(hr.device), noise)
        sample, condition = noisy_input(
            self.sr_net, self.scheduler, lr, x0, noise, t, self.network.config["sr_condition"], edit, own
        )
        estimate = model(sample, t.to(hr.device), condition, return_dict=False)[0].float()
        losses = {"mse": F.mse_loss(estimate, x0)}
        # What the discriminator says of an image changes as it learns: held-out losses would not compare.
        if self.discriminator is not None and model.training:
            losses |= self._feature_losses(self.discriminator, estimate, x0)
        elif self.perceptual is not None:
            losses["perceptual"] = self.perceptual(estimate, x0)
        if training.detail_weights:
            distances = detail_distances(estimate, x0, self.config.scale)
            losses |= {name: distances[name] for name in training.detail_weights}
        weights = {"perceptual": training.perceptual_weight, "adversarial": training.adversarial_weight}
        return _with_sum(losses, {**weights, **training.detail_weights})

    def _with_own_states(
        self,
        chosen: torch.Tensor,
        noise: torch.Tensor,
        states: torch.Tensor,
        sr: torch.Tensor,
        upsampled: torch.Tensor,
        weight: torch.Tensor,
    ) -> torch.Tensor:
        """The states with those of the chosen samples (B,) replaced by what the network's own steps lead to."""
        if not chosen.any():
            return states
        sr, upsampled, scheduler = sr[chosen], upsampled[chosen], self.sampler
        scale, sr_condition = self.config.scale, self.network.config["sr_condition"]
        own = scheduler.prior_sample(upsampled, noise[chosen], weight[chosen])
        for t in scheduler.timesteps[:-1].tolist():
            scaled = scheduler.scale_model_input(own, t)
            sample, condition = denoiser_input(scaled, sr, upsampled, scale=scale, sr_condition=sr_condition)
            # Not the wrapped one, whose processes would wait for each other: they choose different numbers of samples.
            estimate = self.network(sample, t, condition, return_dict=False)[0].float()
            own = scheduler.step(estimate, t, own, upsampled, return_dict=False)[0]
        # Where autocast keeps weights that were cast without gradients (torch before 2.10), the step would train none.
        torch.clear_autocast_cache()
        return states.index_put((chosen,), own)

    def _feature_losses(self, discriminator: nn.Module, estimate: torch.Tensor, target: torch.Tensor) -> Losses:
        """``perceptual``, ``adversarial`` and ``discriminator``, from the same features."""
        vgg = self.perceptual
        assert isinstance(vgg, VGGFeatureLoss)
        with torch.no_grad():
            references = vgg.features(target)
            scales = magnitudes(target, references)
            real = gather_evidence(target, references, scales)
        features = vgg.features(estimate)
        adversarial, own = adversarial_losses(discriminator, real, gather_evidence(estimate, features, scales))
        return {"perceptual": vgg.distance(features, references), "adversarial": adversarial, "discriminator": own}

    def upscaler(self, network: UPSRUNet) -> UpscaleBatch:
        """The whole pipeline."""
        return pipeline_upscaler(network, self.sr_net, self.scheduler)

    def references(self) -> dict[str, UpscaleBatch]:
        """g, which is frozen."""
        return {"g": sr_upscaler(self.sr_net)}

    def export(self, folder: Path, network: UPSRUNet) -> None:
        """The whole pipeline."""
        export_pipeline(folder, self.sr_net, network, self.scheduler)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> None:
        """Move all that the losses need."""
        super().to(device, memory_format)
        self.sr_net.to(device, memory_format=memory_format)


@torch.no_grad()
def noisy_input(
    sr_net: SRNet,
    scheduler: UNWScheduler,
    lr: torch.Tensor,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    sr_condition: bool,
    edit: Callable[[torch.Tensor], torch.Tensor] | None = None,
    own: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The denoiser's input for x0 at step t (Eq. 5 to 7).

    One pass of g serves the noise weight and the condition.

    Args:
        lr: (B,3,h,w) in [0,1].
        x0: (B,3,s*h,s*w) in [-1,1].
        noise: standard normal, shaped as x0.
        t: (B,) steps 0..T-1.
        sr_condition: of the denoiser's configuration.
        edit: of the noise weight, w to w.
        own: of the states: x_t, G, Y (in [-1,1]) and w to x_t.

    Returns:
        The scaled state x_t (B,3*s*s,h,w) and the condition, both pixel-unshuffled.
    """
    scale = x0.shape[-1] // lr.shape[-1]
    sr = 2 * sr_net(lr, return_dict=False)[0].float() - 1
    upsampled = upsample(2 * lr - 1, scale)
    weight = scheduler.noise_weight(uncertainty(sr, upsampled))
    if edit is not None:
        weight = edit(weight)
    state = scheduler.add_noise(x0, upsampled, noise, t, weight)
    if own is not None:
        state = own(state, sr, upsampled, weight)
    state = scheduler.scale_model_input(state, t)
    return denoiser_input(state, sr, upsampled, scale=scale, sr_condition=sr_condition)


def _with_sum(losses: Losses, weights: Mapping[str, float]) -> Losses:
    """``losses`` after ``"loss"``, their sum with these weights, 1 where there is none."""
    total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
    return {"loss": total, **losses}


def sr_upscaler(sr_net: SRNet) -> UpscaleBatch:
    """g by itself."""

    @torch.no_grad()
    def upscale(lr: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        del seeds
        return sr_net(lr, return_dict=False)[0].float()

    return upscale


def pipeline_upscaler(unet: UPSRUNet, sr_net: SRNet, scheduler: UNWScheduler) -> UpscaleBatch:
    """The whole pipeline; each photo has noise of its own, the same every time."""
    # The pipeline selects steps: let it do so with a scheduler that training does not use.
    pipe = UPSRPipeline(unet, sr_net, UNWScheduler.from_config(scheduler.config))
    pipe.set_progress_bar_config(disable=True)

    def upscale(lr: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe(lr, generator=generators, tile_size=0, output_type="pt", return_dict=False)[0]

    return upscale
