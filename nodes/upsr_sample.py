"""UPSRSample: the diffusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import torch
from comfy_api.latest import io

from .hosted_model import UPSRModel, UPSRModelType
from .images import check_image, empty_image, frame_of, frame_weight, put_frame
from .notices import logger, show_at_node, shown
from .progress import NodeProgress
from .shared_sr import SharedSR, SharedSRType

if TYPE_CHECKING:
    from upsr_core import UPSRPipeline


class UPSRSample(io.ComfyNode):
    """Upscales a batch frame by frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        from upsr_core.choices import COLOR_FIXES, DEFAULT_TILE_OVERLAP, LARGEST_SCALE

        return io.Schema(
            node_id="UPSRSample",
            display_name="UPSR Sample",
            category="image/upscaling",
            description="Upscales photos 4x by diffusion in a few steps, with noise only where it is needed.",
            inputs=[
                UPSRModelType.Input("upsr_model", tooltip="From Load UPSR."),
                io.Image.Input("image", tooltip="The low-resolution image or batch; a fourth channel is alpha."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the noise. Every frame of a batch starts from the same, so frames stay alike.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="0: as many as the model is made for (2 for the bundled one, 5 for the published ones). "
                    "Fewer are faster, 1 is a single call of the denoiser.",
                ),
                io.Float.Input(
                    "stochasticity",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="0: deterministic after the first noise; 1: fresh noise in every step, as in the paper.",
                ),
                io.Float.Input(
                    "noise_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Factor on the noise everywhere. Lower stays closer to the input, higher invents more.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=4096,
                    # A step that the bundled and the published models both accept.
                    step=64,
                    tooltip="Side of the tiles in pixels of the input. 0: the whole image if the memory allows it, "
                    "else the largest tiles it does.",
                ),
                io.Int.Input(
                    "tile_overlap",
                    default=DEFAULT_TILE_OVERLAP,
                    min=0,
                    max=512,
                    step=4,
                    tooltip="Input pixels that neighbouring tiles share, and over which they are blended.",
                ),
                io.Float.Input(
                    "output_scale",
                    default=4.0,
                    min=0.1,
                    max=LARGEST_SCALE,
                    step=0.25,
                    round=0.001,
                    tooltip="Size of the output as a multiple of the input. Where it is not the model's own, its "
                    "result is resized (Lanczos), which above it adds no detail.",
                ),
                io.Combo.Input(
                    "color_fix",
                    options=["auto", *COLOR_FIXES],
                    default="auto",
                    tooltip="Gives the result the input's colours. wavelet: its coarse scales; adain: its mean and "
                    "spread; auto: as the model is made for (wavelet for the bundled one).",
                ),
                io.Int.Input(
                    "tile_batch_size",
                    default=0,
                    min=0,
                    max=64,
                    # Not in workflows of earlier versions.
                    optional=True,
                    tooltip="Tiles that the denoiser takes at once: more are faster where the memory allows it. 0: as "
                    "many as the memory allows.",
                ),
                io.Float.Input(
                    "flat_threshold",
                    default=-1.0,
                    min=-1.0,
                    max=1.0,
                    step=0.005,
                    round=0.0001,
                    optional=True,
                    tooltip="Contrast below which a region counts as flat: there the SR network's image is kept, free "
                    "of grain. 0: nowhere; below 0: as the model was made for.",
                ),
                io.Float.Input(
                    "adaptive_steps",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.0001,
                    optional=True,
                    tooltip="Mean uncertainty of a tile from which on it gets all steps. Calmer tiles get fewer, which "
                    "is faster and smoother; tile_size should be small. 0: all steps for all.",
                ),
                io.Mask.Input(
                    "noise_weight",
                    optional=True,
                    tooltip="From Estimate Uncertainty, edited or not: how much noise each pixel gets, the same in "
                    "the three colours. Without it the model decides, for each colour by itself.",
                ),
                SharedSRType.Input(
                    "sr",
                    optional=True,
                    tooltip="From Estimate Uncertainty, for the same model and image, so that it is not computed "
                    "again. The result is the same.",
                ),
            ],
            outputs=[io.Image.Output("upscaled", display_name="image", tooltip="The upscaled image or batch.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, color_fix: str | None) -> bool | str:
        """Refuse values that older servers let pass in a combo; None is a value that is not known yet."""
        from upsr_core.choices import COLOR_FIXES

        if color_fix in (None, "auto", *COLOR_FIXES):
            return True
        return f"color_fix must be one of auto, {', '.join(COLOR_FIXES)}, not {color_fix!r}"

    @classmethod
    def execute(
        cls,
        upsr_model: UPSRModel,
        image: torch.Tensor,
        seed: int,
        steps: int,
        stochasticity: float,
        noise_strength: float,
        tile_size: int,
        tile_overlap: int,
        output_scale: float,
        color_fix: str,
        tile_batch_size: int = 0,
        flat_threshold: float = -1.0,
        adaptive_steps: float = 0.0,
        noise_weight: torch.Tensor | None = None,
        sr: SharedSR | None = None,
    ) -> io.NodeOutput:
        """Frame by frame, with one on the device at a time."""
        from upsr_core.resampling import output_size
        from upsr_core.upscaling import check_scale, resizing_note, upscale

        check_image(image)
        pipe = upsr_model.pipe
        _check_settings(pipe, steps, tile_size)
        check_scale(pipe, output_scale, "output_scale")
        if sr is not None:
            sr.check(upsr_model, image)
        frames, height, width, channels = image.shape
        size = output_size(height, width, output_scale)
        result = empty_image(frames, max(3, channels), *size, mm.intermediate_device())
        with (
            shown(show_at_node(cls.hidden.unique_id)),
            upsr_model.running(height, width, tile_size, tile_batch_size),
        ):
            progress = NodeProgress(frames)
            if output_scale > pipe.scale:
                logger.warning("%s.", resizing_note(pipe, output_scale))

            def preview(_pipe: Any, _step: int, _t: int, tensors: dict[str, torch.Tensor]) -> dict:
                estimate = tensors["pred_original_sample"]
                progress.preview(estimate[..., : height * pipe.scale, : width * pipe.scale])
                return {}

            for index in range(frames):
                rgb, alpha = frame_of(image, index)
                weight = noise_weight
                if weight is not None:
                    weight = frame_weight(weight, index, frames, pipe.scale * height, pipe.scale * width)
                rgb, alpha = upscale(
                    pipe,
                    rgb,
                    alpha,
                    scale=output_scale,
                    seed=seed,
                    num_inference_steps=steps or None,
                    stochasticity=stochasticity,
                    noise_strength=noise_strength,
                    flat_threshold=None if flat_threshold < 0 else flat_threshold,
                    noise_weight=weight,
                    sr=None if sr is None else sr.frames[index],
                    tile_size=tile_size or None,
                    tile_overlap=tile_overlap,
                    tile_batch_size=tile_batch_size or None,
                    adaptive_steps=adaptive_steps or None,
                    color_fix=None if color_fix == "auto" else color_fix,
                    callback_on_step_end=preview,
                    callback_on_step_end_tensor_inputs=["pred_original_sample"],
                    callback_on_tile_end=progress.listener(index),
                )
                put_frame(result, index, rgb if alpha is None else torch.cat([rgb, alpha], dim=1))
        return io.NodeOutput(result)


def _check_settings(pipe: UPSRPipeline, steps: int, tile_size: int) -> None:
    """Refuse values that this model cannot take; the widgets' limits are those of all models.

    Raises:
        ValueError: the message names the widget and a value to set.
    """
    most, unit = pipe.scheduler.config.num_train_timesteps, pipe.tile_multiple
    if steps > most:
        raise ValueError(f"steps {steps} is more than this model's {most}; set at most that, or 0 for its own")
    if tile_size % unit:
        raise ValueError(
            f"tile_size {tile_size} must be a multiple of {unit} for this model; set {-(-tile_size // unit) * unit}, "
            "or 0 for tiles as large as the memory allows"
        )
