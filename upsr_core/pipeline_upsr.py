"""The one road from an LR image to an HR image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor

from .adaptive import StepPlan
from .choices import DEFAULT_TILE_OVERLAP
from .color_fix import fix_color
from .compilation import compile_denoiser
from .diffusers_hook import registered_with_diffusers
from .image_input import ImageInput, to_output, to_tensor
from .memory import free_bytes
from .models import SRNet, UPSRUNet, denoiser_input
from .models.kept import keep_derived
from .network_call import call_network
from .pipeline_checks import check_inputs, check_padded, padded_plane
from .resampling import pad_to_multiple, upsample
from .scheduling_unw import UNWScheduler
from .tile_choice import choose_tiling, largest_tile
from .tiling import CallCounter, Chunk, Tiling, run_on_tiles
from .uncertainty import detail_share, uncertainty

logger = logging.get_logger(__name__)

# g attends to tokens all over the image, so its tiles are as large as memory allows, and share more than others.
SR_TILE_OVERLAP = 32


@dataclass
class UPSRPipelineOutput(BaseOutput):
    """Result of `UPSRPipeline`.

    Attributes:
        images: the HR images as ``output_type`` asks, in the order of the input.
        uncertainty: psi of Eq. 5, float32 (B,3,s*h,s*w) in units of the [0,1] range.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    uncertainty: torch.Tensor


@registered_with_diffusers
class UPSRPipeline(DiffusionPipeline):
    """Super-resolution by uncertainty-guided diffusion.

    Args:
        unet: the denoiser.
        sr_net: the SR network g, which conditions the denoiser and whose distance to the upsampled input is the
            uncertainty.
        scheduler: the diffusion arithmetic.
    """

    model_cpu_offload_seq = "sr_net->unet"
    _callback_tensor_inputs = ("latents", "pred_original_sample")

    unet: UPSRUNet
    sr_net: SRNet
    scheduler: UNWScheduler

    def __init__(self, unet: UPSRUNet, sr_net: SRNet, scheduler: UNWScheduler):
        super().__init__()
        self.register_modules(unet=unet, sr_net=sr_net, scheduler=scheduler)

    @property
    def scale(self) -> int:
        """Super-resolution factor s."""
        return self.unet.config.scale

    @property
    def tile_multiple(self) -> int:
        """``tile_size`` must be a multiple of it: the windows of the denoiser's smallest level, in LR pixels."""
        return self.unet.lr_multiple

    @property
    def _padding(self) -> int:
        """The output's sides are padded to multiples of it inside."""
        return self.scale * self.unet.config.pad_multiple

    def compile(self, **options: Any) -> None:
        """Compile the denoiser by ``torch.compile`` at its next call: slow at first, faster from then on.

        Each size of tiles is compiled for itself. So ``tile_size=None`` picks one that images of many sizes share, and
        tiles always have ``tile_size`` where the image is not smaller. With the same tiles, results differ by rounding
        from those without. What was compiled is kept between runs in the folder TORCHINDUCTOR_CACHE_DIR, by default
        torchinductor_USER in the system's folder for temporary files. The SR network is not compiled: its tiles are as
        large as memory allows, another size for each image.

        Args:
            options: more arguments of ``torch.compile``.

        Raises:
            ValueError: the C++ compiler is missing with which PyTorch compiles for a CPU.
        """
        compile_denoiser(self.unet, **options)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        num_inference_steps: int | None = None,
        stochasticity: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        noise: torch.Tensor | None = None,
        noise_strength: float = 1.0,
        noise_mask: torch.Tensor | np.ndarray | None = None,
        noise_weight: torch.Tensor | np.ndarray | None = None,
        flat_threshold: float | None = None,
        sr: torch.Tensor | None = None,
        tile_size: int | None = None,
        tile_overlap: int = DEFAULT_TILE_OVERLAP,
        tile_batch_size: int | None = None,
        adaptive_steps: float | None = None,
        color_fix: str | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[UPSRPipeline, int, int, dict[str, torch.Tensor]], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents", "pred_original_sample"),
        callback_on_tile_end: Callable[[int, int], None] | None = None,
    ) -> UPSRPipelineOutput | tuple[Any, torch.Tensor]:
        """Upscale images by the model's scale s.

        Args:
            image: PIL image, list of them, array (B,h,w,3) or tensor (B,3,h,w) in [0,1]; any size from 1x1.
            num_inference_steps: steps of the reverse process, 1 to the scheduler's T. Every count starts at the
                noisiest timestep; 1 returns the denoiser's first estimate. By default as many as the model is made
                for: T, or its scheduler's ``default_inference_steps``.
            stochasticity: share of fresh noise in each step: 0 deterministic, 1 the paper's sampler (Eq. 8).
            generator: source of the noise; a list of one per image makes each image's result independent of the
                others in the batch.
            noise: the starting noise itself, standard normal (B,3,s*h',s*w') with h', w' the size padded to multiples
                of the denoiser's ``pad_multiple``.
            noise_strength: factor on the noise weight w everywhere, >= 0; below 1 stays closer to the input.
            noise_mask: factor on w for every pixel, >= 0, at output size: (s*h,s*w), (B,s*h,s*w) or (B,1|3,s*h,s*w).
            noise_weight: w itself, >= 0, instead of the scheduler's function of the uncertainty; shaped as
                ``noise_mask``.
            flat_threshold: local contrast in [0,1] units, 0 to 1, below which the SR network's image is kept and no
                detail is sampled, see `uncertainty.detail_share`; 0 never, None as the model's scheduler says.
            sr: what `super_resolve` returned for this image, so that g is not run again; (B,3,s*h',s*w') in [-1,1].
            tile_size: largest side in LR pixels of the tiles the denoiser runs on; they are no larger than their number
                needs. None picks the whole image if it fits into the free memory, else the largest tile that does; 0
                never tiles.
            tile_overlap: LR pixels that neighbouring tiles share at least, and over which they are blended.
            tile_batch_size: tiles per call of the denoiser; None picks it with the tile size. Where memory runs out all
                the same, the run goes on with less at a time and logs a warning.
            adaptive_steps: mean uncertainty psi of a tile, in (0,1], from which on it gets all steps; tiles with less
                get fewer, in proportion, down to one. An untiled image is one tile, so name a ``tile_size``. None gives
                all tiles all steps.
            color_fix: ``"wavelet"`` or ``"adain"`` give the result the input's colours, see `color_fix.fix_color`;
                ``"none"`` does not, None as the model's scheduler says.
            output_type: ``"pil"``, ``"np"`` (B,s*h,s*w,3) or ``"pt"`` (B,3,s*h,s*w), both float32 in [0,1].
            return_dict: return a `UPSRPipelineOutput` instead of the tuple (images, uncertainty).
            callback_on_step_end: called as ``callback(pipeline, step, timestep, tensors)`` after each step; may return
                a dict with replaced ``latents``.
            callback_on_step_end_tensor_inputs: which of ``latents`` (the state x_t of the whole padded image) and
                ``pred_original_sample`` (the current estimate of x_0) the callback gets; (B,3,s*h',s*w') in [-1,1].
            callback_on_tile_end: called as ``callback(done, total)`` after each call of a network; what it raises ends
                the run.

        Raises:
            ValueError: for an argument out of its range, shape or type, or weights that give NaN.
        """
        self._check_components()
        device = self._execution_device
        scale = self.scale
        lr = to_tensor(image).to(device)
        batch, _, height, width = lr.shape
        size = batch, scale * height, scale * width
        check_inputs(
            size,
            self._padding,
            self.tile_multiple,
            self._callback_tensor_inputs,
            stochasticity=stochasticity,
            generator=generator,
            noise=noise,
            noise_strength=noise_strength,
            flat_threshold=flat_threshold,
            sr=sr,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            tile_batch_size=tile_batch_size,
            adaptive_steps=adaptive_steps,
            color_fix=color_fix,
            output_type=output_type,
            tensor_inputs=callback_on_step_end_tensor_inputs,
            callbacks={"callback_on_step_end": callback_on_step_end, "callback_on_tile_end": callback_on_tile_end},
        )
        if noise_weight is not None:
            noise_weight = padded_plane("noise_weight", noise_weight, size, self._padding).to(device)
        if noise_mask is not None:
            noise_mask = padded_plane("noise_mask", noise_mask, size, self._padding).to(device)
        if generator is not None and not isinstance(generator, torch.Generator):
            generator = list(generator)

        # 1. The LR image, padded to a size the denoiser can fold
        lr = pad_to_multiple(lr, self.unet.config.pad_multiple)
        tiling = self._tiling(lr, tile_size, tile_overlap, tile_batch_size)
        self.scheduler.set_timesteps(num_inference_steps)
        if flat_threshold is None:
            flat_threshold = self.scheduler.config.flat_threshold
        if color_fix is None:
            color_fix = self.scheduler.config.default_color_fix

        steps = len(self.scheduler.timesteps)
        with keep_derived(self.unet, self.sr_net), self.progress_bar(total=0) as bar:
            progress = CallCounter(bar, callback_on_tile_end)

            # 2. Condition and uncertainty: one pass of g
            upsampled = upsample(2 * lr - 1, scale)
            if sr is None:
                sr = self._super_resolve(lr, progress, calls_after=StepPlan(steps).calls_after(-1, batch, tiling))
            sr = sr.to(device, torch.float32)
            weight = self._noise_weight(sr, upsampled, noise_weight, noise_strength, noise_mask)
            share = detail_share(sr, flat_threshold) if flat_threshold else None
            plan = StepPlan(steps)
            if adaptive_steps is not None:
                plan = StepPlan(steps, uncertainty(sr, upsampled), adaptive_steps, scale)

            # 3. The noisiest state: noise is drawn once for the whole image
            if noise is None:
                noise = randn_tensor(tuple(upsampled.shape), generator=generator, device=device, dtype=torch.float32)
            noise = noise.to(device, torch.float32) * weight
            # Each of these is as large as the result: what is not needed any more makes room.
            weight_of_fresh = weight if stochasticity > 0 else None
            del weight
            latents = self.scheduler.prior_sample(upsampled, noise)
            del noise

            # 4. Reverse process: per step the denoiser tile by tile, then one scheduler step for the whole image
            kept = None
            for step, t in enumerate(self.scheduler.timesteps.tolist()):
                estimate = torch.empty_like(latents)
                tiling = run_on_tiles(
                    partial(self._denoise, latents, t, sr, upsampled), estimate, tiling, progress, scale=scale,
                    calls_after=partial(plan.calls_after, step, batch), wanted=partial(plan.runs, step), kept=kept,
                )  # fmt: skip
                kept = estimate if plan.is_adaptive else None
                if share is not None:
                    estimate = torch.lerp(sr, estimate, share)
                latents, estimate = self.scheduler.step(
                    estimate, t, latents, upsampled, weight_of_fresh, stochasticity, generator, return_dict=False
                )
                if callback_on_step_end is not None:
                    state = {"latents": latents, "pred_original_sample": estimate}
                    wanted = {name: state[name] for name in callback_on_step_end_tensor_inputs}
                    latents = (callback_on_step_end(self, step, t, wanted) or {}).get("latents", latents)
                    del state, wanted
                del estimate
            del kept

        # 5. The image: clipped to its range here and nowhere before
        inside = (..., slice(scale * height), slice(scale * width))
        images = fix_color(latents[inside], upsampled[inside], color_fix).clamp(-1, 1).add_(1).div_(2)
        del latents
        psi = uncertainty(sr, upsampled)[inside].clone()
        del sr, upsampled
        self.maybe_free_model_hooks()
        result = to_output(images, output_type)
        return UPSRPipelineOutput(images=result, uncertainty=psi) if return_dict else (result, psi)

    @torch.no_grad()
    def super_resolve(
        self, image: ImageInput, callback_on_tile_end: Callable[[int, int], None] | None = None
    ) -> torch.Tensor:
        """G, one pass of the SR network, to give to several calls of the pipeline.

        Args:
            image, callback_on_tile_end: as in `__call__`.

        Returns:
            float32 (B,3,s*h',s*w') in [-1,1], not clipped; h', w' are the size padded to multiples of the denoiser's
            ``pad_multiple``.
        """
        self._check_components()
        lr = pad_to_multiple(to_tensor(image).to(self._execution_device), self.unet.config.pad_multiple)
        with keep_derived(self.sr_net), self.progress_bar(total=0) as bar:
            sr = self._super_resolve(lr, CallCounter(bar, callback_on_tile_end))
        self.maybe_free_model_hooks()
        return sr

    @torch.no_grad()
    def estimate_uncertainty(
        self,
        image: ImageInput,
        callback_on_tile_end: Callable[[int, int], None] | None = None,
        sr: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass of g: where it is unsure, and its fast super-resolved image.

        Args:
            image, callback_on_tile_end, sr: as in `__call__`.

        Returns:
            psi (Eq. 5) and the SR image, both float32 (B,3,s*h,s*w) in units of the [0,1] range; the image is clipped.
        """
        lr = to_tensor(image)
        height, width = (self.scale * side for side in lr.shape[-2:])
        if sr is None:
            sr = self.super_resolve(lr, callback_on_tile_end)
        else:
            check_padded("sr", sr, (len(lr), height, width), self._padding)
        inside = (..., slice(height), slice(width))
        # Padded as g saw it: at the border, the upsampled image depends on the pixels beyond.
        padded = pad_to_multiple(lr.to(sr.device), self.unet.config.pad_multiple)
        psi = uncertainty(sr, upsample(2 * padded - 1, self.scale))
        return psi[inside].clone(), sr[inside].clamp(-1, 1).add_(1).div_(2)

    def _super_resolve(self, lr: torch.Tensor, progress: CallCounter, calls_after: int = 0) -> torch.Tensor:
        """G of the padded LR image, float32 in [-1,1]; g sees the whole image if it fits into the free memory."""

        def super_resolve(chunk: Chunk) -> torch.Tensor:
            parts = torch.stack([lr[(index, slice(None), *tile.slices())] for index, tile in chunk])
            return 2 * call_network(self.sr_net, parts) - 1

        height, width = lr.shape[-2:]
        sr = lr.new_empty(*lr.shape[:2], self.scale * height, self.scale * width)
        # More than twice the overlap, whatever little memory is free.
        unit = max(self.tile_multiple, self.sr_net.config.get("window_size", 1), 3 * SR_TILE_OVERLAP)
        tile_size = largest_tile(self.sr_net, height, width, unit, free_bytes(lr.device))
        tiling = Tiling(height, width, tile_size, SR_TILE_OVERLAP, unit)
        run_on_tiles(super_resolve, sr, tiling, progress, scale=self.scale, calls_after=lambda _: calls_after)
        return sr

    def _noise_weight(
        self,
        sr: torch.Tensor,
        upsampled: torch.Tensor,
        given: torch.Tensor | None,
        strength: float,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """W as the arguments of `__call__` ask for it; it broadcasts to the shape of ``sr``."""
        weight = strength * (self.scheduler.noise_weight(uncertainty(sr, upsampled)) if given is None else given)
        return weight if mask is None else weight * mask

    def _denoise(
        self, latents: torch.Tensor, t: int, sr: torch.Tensor, upsampled: torch.Tensor, chunk: Chunk
    ) -> torch.Tensor:
        """The denoiser's estimate of x_0 on some tiles."""

        def tiles_of(image: torch.Tensor) -> torch.Tensor:
            return torch.stack([image[(index, slice(None), *tile.slices(self.scale))] for index, tile in chunk])

        state = self.scheduler.scale_model_input(tiles_of(latents), t)
        sr_condition = self.unet.config.sr_condition
        sample, condition = denoiser_input(
            state, tiles_of(sr), tiles_of(upsampled), scale=self.scale, sr_condition=sr_condition
        )
        # A tensor, as torch.compile makes another graph for each number.
        return call_network(self.unet, sample, torch.tensor(t), condition)

    def _tiling(self, lr: torch.Tensor, tile_size: int | None, overlap: int, tile_batch_size: int | None) -> Tiling:
        return choose_tiling(
            self.unet,
            *(len(lr), *lr.shape[-2:], self.tile_multiple, free_bytes(lr.device)),
            tile_size=tile_size,
            overlap=overlap,
            tile_batch_size=tile_batch_size,
        )

    def _check_components(self) -> None:
        for name in ("unet", "sr_net", "scheduler"):
            if getattr(self, name, None) is None:
                raise ValueError(f"the pipeline has no {name}; load or pass one")
        if self.sr_net.config.scale != self.scale:
            raise ValueError(f"sr_net has scale {self.sr_net.config.scale}, unet has {self.scale}; they must agree")
