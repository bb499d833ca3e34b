"""Diffusion arithmetic of UPSR (CVPR 2025): residual shifting with uncertainty-guided noise weights (UNW)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .choices import COLOR_FIXES
from .diffusers_hook import registered_with_diffusers
from .uncertainty import noise_weight as uncertainty_noise_weight

Timestep = int | float | torch.Tensor

MAX_TRAIN_TIMESTEPS = 100_000


@dataclass
class UNWSchedulerOutput(BaseOutput):
    """Result of `UNWScheduler.step`.

    Attributes:
        prev_sample: the state at the next, less noisy step; after the last one the denoiser's estimate.
        pred_original_sample: the denoiser's estimate of x0 at this step, not clipped.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


@registered_with_diffusers
class UNWScheduler(SchedulerMixin, ConfigMixin):
    """Forward and reverse process of UPSR (Eq. 7 and 8), and with ``weight_min=1`` those of ResShift.

    The state x_t leads from the HR image x0 to the bicubically upsampled image Y plus noise; w weights the
    noise of each pixel, see `noise_weight`. Timesteps are 0..num_train_timesteps-1 (the paper's minus 1),
    a larger one is noisier. All tensors are in [-1,1] units and of one shape (B,C,H,W), pixels or
    pixel-unshuffled alike; w and Y may be of any shape that broadcasts to it. Half-precision tensors are
    computed with in float32 and returned in their own type.

    The isotropic baselines are configurations: ResShift's 15-step schedule is
    ``UNWScheduler(15, kappa=2.0, min_noise_level=0.04, power=0.3, input_variance=1.0, weight_min=1.0)``.

    Args:
        num_train_timesteps: number of steps T, 2 to 100,000.
        kappa: standard deviation of the noise at eta = 1, in [-1,1] units.
        min_noise_level: sqrt(eta) of step 0 is the smallest of this, min_noise_level / kappa and sqrt(0.001).
        etas_end: sqrt(eta) of the last step (it bounds the root, not eta), in (0,1].
        power: exponent of the schedule between the two; smaller values make the first steps noisier.
        input_variance: average of w^2 that `scale_model_input` assumes; 0.3 suits the default weights, 1.0 is
            right for isotropic noise.
        psi_max: uncertainty from which on the noise is full (Eq. 6), in [0,1] units.
        weight_min: noise weight where there is no uncertainty, in [0,1]; 1 switches the weighting off.
        flat_threshold: local contrast of G up to which a pixel's estimate is G's in part, see `detail_share`; 0, the
            paper's, takes the denoiser's everywhere.
        default_inference_steps: steps that `set_timesteps` chooses where it is not told, for a model that is trained
            for fewer; None, the paper's, for all.
        default_color_fix: correction of the result's colours that the pipeline makes where it is not told, a method of
            `color_fix.fix_color`; "none" is the paper's.

    Raises:
        ValueError: for a value out of its range.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 5,
        kappa: float = 2.5,
        min_noise_level: float = 0.2,
        etas_end: float = 0.99,
        power: float = 0.2,
        input_variance: float = 0.3,
        psi_max: float = 0.1,
        weight_min: float = 0.4,
        flat_threshold: float = 0.0,
        default_inference_steps: int | None = None,
        default_color_fix: str = "none",
    ):
        if type(num_train_timesteps) is not int or not 2 <= num_train_timesteps <= MAX_TRAIN_TIMESTEPS:
            raise ValueError(
                f"num_train_timesteps must be a whole number from 2 to {MAX_TRAIN_TIMESTEPS}, got "
                f"{num_train_timesteps!r}; set_timesteps(1) is the one-step mode"
            )
        positive = {"kappa": kappa, "min_noise_level": min_noise_level, "power": power, "psi_max": psi_max}
        others = {"etas_end": etas_end, "input_variance": input_variance, "flat_threshold": flat_threshold}
        for name, value in {**positive, **others}.items():
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a number, got {value!r}")
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not 0 <= weight_min <= 1:
            raise ValueError(f"weight_min must be in [0,1], got {weight_min}")
        for name in ("input_variance", "flat_threshold"):
            if others[name] < 0:
                raise ValueError(f"{name} must not be negative, got {others[name]}")
        start = min(min_noise_level / kappa, min_noise_level, math.sqrt(0.001))
        if not start < etas_end <= 1:
            raise ValueError(f"etas_end must be above step 0's {start:.4g} and at most 1, got {etas_end}")
        if default_inference_steps is not None:
            _check_steps("default_inference_steps", default_inference_steps, num_train_timesteps)
        if default_color_fix not in COLOR_FIXES:
            raise ValueError(f"default_color_fix must be one of {', '.join(COLOR_FIXES)}, not {default_color_fix!r}")
        progress = torch.linspace(0, 1, num_train_timesteps, dtype=torch.float64)
        self.sqrt_etas = start * (etas_end / start) ** (progress**power)
        self.etas = self.sqrt_etas**2
        self.init_noise_sigma = kappa * self.sqrt_etas[-1].item()
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def set_timesteps(self, num_inference_steps: int | None = None, device: str | torch.device | None = None) -> None:
        """Choose the steps of the reverse process; `timesteps` then lists them, noisiest first.

        Args:
            num_inference_steps: 1..num_train_timesteps, by default as the configuration says, else all. Fewer are
                spread evenly and always contain the noisiest step T-1, from which `prior_sample` draws; 1 is the
                one-step mode.
            device: where to put `timesteps`.
        """
        total = self.config.num_train_timesteps
        count = num_inference_steps
        if count is None:
            count = self.config.default_inference_steps or total
        _check_steps("num_inference_steps", count, total)
        self.num_inference_steps = int(count)
        self.timesteps = torch.tensor(spread_steps(total, int(count)), dtype=torch.int64, device=device)

    def scale_model_input(self, sample: torch.Tensor, t: Timestep) -> torch.Tensor:
        """x_t / sqrt(eta_t kappa^2 input_variance + 0.25), the denoiser's input; t: int or (B,)."""
        variance = self.etas * self.config.kappa**2 * self.config.input_variance
        scaled = _at_least_float32(sample) / self._lookup((variance + 0.25).sqrt(), t, sample)
        return scaled.to(sample.dtype)

    def noise_weight(self, psi: torch.Tensor) -> torch.Tensor:
        """w of Eq. 6 for the uncertainty psi (in [0,1] units), element by element; in [weight_min, 1]."""
        return uncertainty_noise_weight(psi, self.config.psi_max, self.config.weight_min)

    def add_noise(
        self,
        original: torch.Tensor,
        upsampled: torch.Tensor | None = None,
        noise: Any = None,
        t: Any = None,
        noise_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw x_t given x0: x0 + eta_t (Y - x0) + kappa sqrt(eta_t) w noise (Eq. 7).

        ``add_noise(original, noise, t)``, with three arguments, is the signature of other diffusers schedulers, which
        their common checks call: Y = x0 and w = 1.

        Args:
            original: x0, (B,C,H,W).
            upsampled: Y; None for Y = x0.
            noise: standard normal.
            t: step index, an int for all or a (B,) tensor.
            noise_weight: w; None for w = 1.
        """
        if t is None:
            upsampled, noise, t = None, upsampled, noise
        if noise is None or t is None:
            raise ValueError("noise and t are missing: add_noise(original, upsampled, noise, t, noise_weight)")
        x0 = _at_least_float32(original)
        sqrt_eta = self._lookup(self.sqrt_etas, t, original)
        mean = x0 if upsampled is None else x0 + self._lookup(self.etas, t, original) * (upsampled - x0)
        return (mean + self.config.kappa * sqrt_eta * _weighted(noise, noise_weight)).to(original.dtype)

    def prior_sample(
        self, upsampled: torch.Tensor, noise: torch.Tensor, noise_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The state from which the reverse process starts: Y + kappa sqrt(eta_{T-1}) w noise.

        Its mean is Y itself: at the noisiest step nothing of x0 is assumed to be left.
        """
        start = _at_least_float32(upsampled) + self.init_noise_sigma * _weighted(noise, noise_weight)
        return start.to(upsampled.dtype)

    def step(
        self,
        model_output: torch.Tensor,
        t: Timestep,
        sample: torch.Tensor,
        upsampled: torch.Tensor | None = None,
        noise_weight: torch.Tensor | None = None,
        stochasticity: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        variance_noise: torch.Tensor | None = None,
    ) -> UNWSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One reverse step, from x_t to the state at the next selected timestep.

        Args:
            model_output: the denoiser's estimate P of x0, in the layout of `sample`.
            t: one of `timesteps`.
            sample: x_t, (B,C,H,W).
            upsampled: Y; None for Y = P (see `add_noise`).
            noise_weight: w; None for w = 1. Only stochastic steps need it.
            stochasticity: share c of fresh noise. 0 is the deterministic sampler, 1 is Eq. 8 exactly.
            generator: for the fresh noise, one for all or a list of one per image.
            return_dict: False returns the tuple (prev_sample, pred_original_sample).
            variance_noise: the fresh noise itself, standard normal, instead of drawing it.

        Raises:
            ValueError: before `set_timesteps`, or for a t that is not in `timesteps`.
        """
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps() before step()")
        if not 0 <= stochasticity <= 1:
            raise ValueError(f"stochasticity must be in [0,1], got {stochasticity}")
        if model_output.shape != sample.shape:
            raise ValueError(
                f"model_output {tuple(model_output.shape)} and sample {tuple(sample.shape)} differ in shape: "
                "pixel-unshuffle the one in pixel space"
            )
        eta, eta_prev = self._step_etas(t)
        variance = stochasticity**2 * eta_prev * (eta - eta_prev) / eta
        x0 = _at_least_float32(model_output)
        # P + eta_prev (Y - P) + kept (x_t - P - eta (Y - P)): the noise of x_t, without its weight w, is kept in part.
        # One coefficient for each tensor, so that the sum needs one new tensor only.
        kept = math.sqrt((eta_prev - variance) / eta)
        of_upsampled = eta_prev - kept * eta
        of_estimate = 1 - eta_prev - kept * (1 - eta)
        prev_sample = x0 * of_estimate
        prev_sample.add_(x0 if upsampled is None else upsampled, alpha=of_upsampled)
        prev_sample.add_(sample, alpha=kept)
        if variance > 0:
            if variance_noise is None:
                variance_noise = _draw(sample, generator)
            scale = self.config.kappa * math.sqrt(variance)
            prev_sample.add_(_weighted(variance_noise, noise_weight), alpha=scale)
        prev_sample = prev_sample.to(sample.dtype)
        if not return_dict:
            return prev_sample, model_output
        return UNWSchedulerOutput(prev_sample=prev_sample, pred_original_sample=model_output)

    def _step_etas(self, t: Timestep) -> tuple[float, float]:
        """eta of step t and of the selected step after it, 0 after the last."""
        selected = self.timesteps.tolist()
        value = t.item() if isinstance(t, torch.Tensor) and t.numel() == 1 else t
        if isinstance(value, torch.Tensor) or value not in selected:
            raise ValueError(f"t must be one of the selected timesteps {selected}, got {value}")
        following = selected.index(value) + 1
        eta_prev = self.etas[selected[following]].item() if following < len(selected) else 0.0
        return self.etas[int(value)].item(), eta_prev

    def _lookup(self, table: torch.Tensor, t: Timestep, like: torch.Tensor) -> float | torch.Tensor:
        """table[t]: a float for one t, or (B,1,1,1) in the working type and on the device of ``like``."""
        index = torch.as_tensor(t, device="cpu")
        total = self.config.num_train_timesteps
        if index.ndim > 1 or (index.ndim == 1 and len(index) not in (1, len(like))):
            raise ValueError(f"t must be one step or one per image ({len(like)}), got {index.tolist()}")
        if ((index < 0) | (index >= total) | (index != index.long())).any():
            raise ValueError(f"t must be whole steps from 0 to {total - 1}, got {index.tolist()}")
        values = table[index.long()]
        if values.ndim == 0:
            return values.item()
        dtype = _at_least_float32(like[:0]).dtype
        return values.to(device=like.device, dtype=dtype).view(-1, *[1] * (like.ndim - 1))


def spread_steps(total: int, count: int) -> list[int]:
    """``count`` of the steps 0..total-1, evenly spread, from the noisiest total-1 on."""
    return [math.ceil(total * (count - i) / count) - 1 for i in range(count)]


def _check_steps(name: str, count: Any, total: int) -> None:
    if not isinstance(count, (int, float, np.number)) or not 1 <= count <= total or count != int(count):
        raise ValueError(f"{name} must be a whole number from 1 to {total} (all steps), got {count!r}")


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _weighted(noise: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    noise = _at_least_float32(noise)
    return noise if weight is None else noise * weight


def _draw(sample: torch.Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> torch.Tensor:
    if generator is not None and not isinstance(generator, torch.Generator):
        generator = list(generator)
        if len(generator) != len(sample):
            raise ValueError(f"generator must have one entry per image ({len(sample)}), got {len(generator)}")
    dtype = torch.promote_types(sample.dtype, torch.float32)
    return randn_tensor(tuple(sample.shape), generator=generator, device=sample.device, dtype=dtype)
