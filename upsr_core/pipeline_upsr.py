"""The one road from an LR image to an HR image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from diffusers.utils.torch_utils import randn_tensor

from .image_input import ImageInput, to_output, to_tensor
from .memory import free_bytes, largest_tile, tiles_per_call
from .models import ATDModel, UPSRUNet
from .padding import pad_to_multiple
from .scheduling_unw import UNWScheduler
from .tiling import Tile, plan_tiles
from .uncertainty import uncertainty, upsample

logger = logging.get_logger(__name__)

DEFAULT_TILE_OVERLAP = 16
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
    sr_net: ATDModel
    scheduler: UNWScheduler

    def __init__(self, unet: UPSRUNet, sr_net: ATDModel, scheduler: UNWScheduler):
        super().__init__()
        self.register_modules(unet=unet, sr_net=sr_net, scheduler=scheduler)

    @property
    def scale(self) -> int:
        """Super-resolution factor s."""
        return self.unet.config.scale

    @property
    def tile_multiple(self) -> int:
        """What ``tile_size`` must be a multiple of: the windows of the denoiser's smallest level, in LR pixels."""
        return self.unet.config.window_size * 2 ** (len(self.unet.config.channel_mult) - 1)

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
        tile_size: int | None = None,
        tile_overlap: int = DEFAULT_TILE_OVERLAP,
        tile_batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[UPSRPipeline, int, int, dict[str, torch.Tensor]], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents", "pred_original_sample"),
    ) -> UPSRPipelineOutput | tuple[Any, torch.Tensor]:
        """Upscale images by the model's scale s.

        Args:
            image: PIL image, list of them, array (B,h,w,3) or tensor (B,3,h,w) in [0,1]; any size from 1x1.
            num_inference_steps: steps of the reverse process, by default all T the scheduler has; fewer keep the
                noisiest ones' start, 1 returns the first estimate.
            stochasticity: share of fresh noise in each step: 0 deterministic, 1 the paper's sampler (Eq. 8).
            generator: source of the noise; a list of one per image makes each image's result independent of the
                others in the batch.
            noise: the starting noise itself, standard normal (B,3,s*h',s*w') with h', w' the size padded to multiples
                of the denoiser's ``pad_multiple``.
            noise_strength: factor on the noise weight w everywhere, >= 0; below 1 stays closer to the input.
            noise_mask: factor on w for every pixel, >= 0, at output size: (s*h,s*w), (B,s*h,s*w) or (B,1|3,s*h,s*w).
            tile_size: side in LR pixels of the tiles the denoiser runs on. None picks the whole image if it fits into
                the free memory, else the largest tile that does; 0 never tiles.
            tile_overlap: LR pixels that neighbouring tiles share at least, and over which they are blended.
            tile_batch_size: tiles per call of the denoiser; None picks it with the tile size.
            output_type: ``"pil"``, ``"np"`` (B,s*h,s*w,3) or ``"pt"`` (B,3,s*h,s*w), both float32 in [0,1].
            return_dict: return a `UPSRPipelineOutput` instead of the tuple (images, uncertainty).
            callback_on_step_end: called as ``callback(pipeline, step, timestep, tensors)`` after each step; may return
                a dict with replaced ``latents``.
            callback_on_step_end_tensor_inputs: which of ``latents`` (the state x_t of the whole padded image) and
                ``pred_original_sample`` (the current estimate of x_0) the callback gets; (B,3,s*h',s*w') in [-1,1].

        Raises:
            ValueError: for an argument out of its range, shape or type.
        """
        self._check_call(noise_strength, output_type, callback_on_step_end_tensor_inputs)
        device = self._execution_device
        scale = self.scale

        # 1. The LR image, padded to a size the denoiser can fold
        lr = to_tensor(image).to(device)
        batch, _, height, width = lr.shape
        lr = pad_to_multiple(lr, self.unet.config.pad_multiple)
        tile_size, tile_batch_size = self._tiling(lr, tile_size, tile_overlap, tile_batch_size)
        if generator is not None and not isinstance(generator, torch.Generator):
            generator = list(generator)
            if len(generator) != batch:
                raise ValueError(f"generator has {len(generator)} entries for {batch} images; pass one per image")
        self.scheduler.set_timesteps(num_inference_steps)

        # 2. Condition and uncertainty: one pass of g
        sr, upsampled = self._super_resolve(lr)
        psi = uncertainty(sr, upsampled)
        noise_weight = self.scheduler.noise_weight(psi) * noise_strength
        if noise_mask is not None:
            noise_weight *= self._padded_mask(noise_mask, (batch, scale * height, scale * width)).to(device)
        psi = psi[..., : scale * height, : scale * width].clone()

        # 3. The noisiest state: noise is drawn once for the whole image
        if noise is None:
            noise = randn_tensor(tuple(upsampled.shape), generator=generator, device=device, dtype=torch.float32)
        elif noise.shape != upsampled.shape:
            raise ValueError(f"noise must have shape {tuple(upsampled.shape)} (padded size), not {tuple(noise.shape)}")
        latents = self.scheduler.prior_sample(upsampled, noise.to(device, torch.float32), noise_weight)
        del noise

        # 4. Reverse process: per step the denoiser tile by tile, then one scheduler step for the whole image
        tiles = plan_tiles(lr.shape[-2], lr.shape[-1], tile_size, tile_overlap)
        chunks = _chunks([(index, tile) for index in range(batch) for tile in tiles], tile_batch_size)
        with self.progress_bar(total=len(chunks) * len(self.scheduler.timesteps)) as progress:
            for step, t in enumerate(self.scheduler.timesteps.tolist()):
                estimate = torch.zeros_like(latents)
                for chunk in chunks:
                    self._denoise(chunk, estimate, latents, t, sr, upsampled)
                    progress.update()
                latents, estimate = self.scheduler.step(
                    estimate, t, latents, upsampled, noise_weight, stochasticity, generator, return_dict=False
                )
                if callback_on_step_end is not None:
                    state = {"latents": latents, "pred_original_sample": estimate}
                    given = {name: state[name] for name in callback_on_step_end_tensor_inputs}
                    latents = (callback_on_step_end(self, step, t, given) or {}).get("latents", latents)

        # 5. The image: clipped to its range here and nowhere before
        images = latents[..., : scale * height, : scale * width].clamp(-1, 1).add_(1).div_(2)
        self.maybe_free_model_hooks()
        result = to_output(images, output_type)
        return UPSRPipelineOutput(images=result, uncertainty=psi) if return_dict else (result, psi)

    @torch.no_grad()
    def estimate_uncertainty(self, image: ImageInput) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass of g: where it is unsure, and its fast super-resolved image.

        Args:
            image: as in `__call__`.

        Returns:
            psi (Eq. 5) and the SR image, both float32 (B,3,s*h,s*w) in units of the [0,1] range; the image is clipped.
        """
        self._check_components()
        lr = to_tensor(image).to(self._execution_device)
        height, width = (self.scale * size for size in lr.shape[-2:])
        lr = pad_to_multiple(lr, self.unet.config.pad_multiple)
        sr, upsampled = self._super_resolve(lr)
        self.maybe_free_model_hooks()
        sr, upsampled = sr[..., :height, :width], upsampled[..., :height, :width]
        return uncertainty(sr, upsampled), sr.clamp(-1, 1).add_(1).div_(2)

    def _super_resolve(self, lr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """G and Y of the padded LR image, float32 in [-1,1]; g sees the whole image if it fits into the free memory."""
        upsampled = upsample(2 * lr - 1, self.scale)
        sr = torch.zeros_like(upsampled)
        height, width = lr.shape[-2:]
        # More than twice the overlap, whatever little memory is free.
        unit = max(self.tile_multiple, self.sr_net.config.window_size, 3 * SR_TILE_OVERLAP)
        tile_size = largest_tile(self.sr_net, height, width, unit, free_bytes(lr.device))
        tiles = plan_tiles(height, width, tile_size, SR_TILE_OVERLAP)
        for index, tile in [(index, tile) for index in range(len(lr)) for tile in tiles]:
            part = lr[(slice(index, index + 1), slice(None), *tile.slices())].to(self.sr_net.dtype)
            output = self.sr_net(part, return_dict=False)[0].float()
            tile.add(sr[index], 2 * output[0] - 1, self.scale)
        return sr, upsampled

    def _denoise(
        self,
        chunk: Sequence[tuple[int, Tile]],
        estimate: torch.Tensor,
        latents: torch.Tensor,
        t: int,
        sr: torch.Tensor,
        upsampled: torch.Tensor,
    ) -> None:
        """Run the denoiser on some tiles, given with their image's index, and blend the results into ``estimate``."""

        def tiles_of(image: torch.Tensor) -> torch.Tensor:
            return torch.stack([image[(index, slice(None), *tile.slices(self.scale))] for index, tile in chunk])

        sample = self.scheduler.scale_model_input(tiles_of(latents), t)
        condition = tiles_of(upsampled)
        if self.unet.config.cond_channels > self.unet.config.in_channels:
            condition = torch.cat([tiles_of(sr), condition], dim=1)
        dtype = self.unet.dtype
        output = self.unet(
            F.pixel_unshuffle(sample, self.scale).to(dtype),
            t,
            F.pixel_unshuffle(condition, self.scale).to(dtype),
            return_dict=False,
        )[0].float()
        for (index, tile), result in zip(chunk, output, strict=True):
            tile.add(estimate[index], result, self.scale)

    def _tiling(
        self, lr: torch.Tensor, tile_size: int | None, overlap: int, tile_batch_size: int | None
    ) -> tuple[int, int]:
        """Check the tiling arguments and fill in what is left to us: tile side and tiles per call."""
        unit = self.tile_multiple
        height, width = lr.shape[-2:]
        whole = max(height, width)
        if tile_batch_size is not None and tile_batch_size < 1:
            raise ValueError(f"tile_batch_size must be at least 1, not {tile_batch_size}")
        if overlap < 0:
            raise ValueError(f"tile_overlap must not be negative, but is {overlap}")
        free = free_bytes(lr.device)
        if tile_size is None:
            tile_size = largest_tile(self.unet, height, width, unit, free)
            if tile_size < whole:
                logger.info("Tiles of %d LR pixels fit into the free memory.", tile_size)
        elif tile_size == 0:
            tile_size = whole
        elif tile_size % unit or tile_size < 0:
            raise ValueError(f"tile_size must be a multiple of {unit} LR pixels for this model, not {tile_size}")
        if tile_size < whole and overlap >= tile_size:
            raise ValueError(f"tile_overlap {overlap} must be smaller than tile_size {tile_size}")
        pixels = min(tile_size, height) * min(tile_size, width)
        return tile_size, tile_batch_size or tiles_per_call(self.unet, pixels, free)

    def _padded_mask(self, mask: torch.Tensor | np.ndarray, size: tuple[int, int, int]) -> torch.Tensor:
        batch, height, width = size
        mask = torch.as_tensor(mask)
        if mask.ndim in (2, 3):
            mask = mask[..., None, :, :]
        mask = mask.float() if mask.ndim == 4 else mask.float()[None]
        if mask.shape[0] not in (1, batch) or mask.shape[1] not in (1, 3) or mask.shape[2:] != (height, width):
            raise ValueError(
                f"noise_mask must be ({height},{width}), ({batch},{height},{width}) or ({batch},1|3,{height},{width}), "
                f"the size of the output; not {tuple(mask.shape)}"
            )
        if not mask.min() >= 0:
            raise ValueError("noise_mask must not be negative or NaN")
        return pad_to_multiple(mask, self.scale * self.unet.config.pad_multiple)

    def _check_components(self) -> None:
        for name in ("unet", "sr_net", "scheduler"):
            if getattr(self, name, None) is None:
                raise ValueError(f"the pipeline has no {name}; load or pass one")
        if self.sr_net.config.scale != self.scale:
            raise ValueError(f"sr_net has scale {self.sr_net.config.scale}, unet has {self.scale}; they must agree")

    def _check_call(self, noise_strength: float, output_type: str, tensor_inputs: Sequence[str]) -> None:
        self._check_components()
        if not noise_strength >= 0:
            raise ValueError(f"noise_strength must not be negative, but is {noise_strength}")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}")
        unknown = [name for name in tensor_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: no {unknown[0]!r} among {self._callback_tensor_inputs}"
            )


def _chunks(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
