"""EstimateUncertainty: the SR network's uncertainty, and the noise weight that follows from it."""

from __future__ import annotations

import weakref

import comfy.model_management as mm
import torch
from comfy_api.latest import io

from .hosted_model import UPSRModel, UPSRModelType
from .images import check_image, empty_image, empty_mask, frame_of, put_frame
from .notices import show_at_node, shown
from .progress import NodeProgress
from .shared_sr import SharedSR, SharedSRType


class EstimateUncertainty(io.ComfyNode):
    """One pass of the SR network g; no diffusion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="EstimateUncertainty",
            display_name="Estimate Uncertainty (UPSR)",
            category="image/upscaling",
            description="Shows where UPSR is unsure, and makes the noise weight that UPSR Sample works with.",
            inputs=[
                UPSRModelType.Input("upsr_model", tooltip="From Load UPSR."),
                io.Image.Input("image", tooltip="The low-resolution image or batch."),
                io.Float.Input(
                    "psi_max",
                    default=0.1,
                    min=0.001,
                    max=1.0,
                    step=0.001,
                    round=0.001,
                    tooltip="Uncertainty from which on the noise is full; lower gives more of the image full noise. "
                    "0.1 is the paper's and the bundled model's.",
                ),
                io.Float.Input(
                    "weight_min",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Noise weight where there is no uncertainty; 1 is the same noise everywhere. 0.4 is the "
                    "paper's and the bundled model's.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "uncertainty",
                    display_name="uncertainty",
                    tooltip="0 sure, 1 uncertainty of psi_max or more; at output size.",
                ),
                io.Image.Output(
                    "heat_map", display_name="heat map", tooltip="The uncertainty from dark blue to yellow."
                ),
                io.Image.Output(
                    "fast_sr",
                    display_name="fast SR",
                    tooltip="The SR network's own image: quick, faithful, without the diffusion's detail.",
                ),
                io.Mask.Output(
                    "noise_weight",
                    display_name="noise weight",
                    tooltip="weight_min to 1, at output size: edit it with mask nodes and give it to UPSR Sample.",
                ),
                SharedSRType.Output(
                    "sr",
                    display_name="sr",
                    tooltip="For UPSR Sample's input of that name, so that it is not computed there again.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, upsr_model: UPSRModel, image: torch.Tensor, psi_max: float, weight_min: float) -> io.NodeOutput:
        """Frame by frame, with one on the device at a time."""
        from upsr_core.uncertainty import heat_map, noise_weight
        from upsr_core.upscaling import opaque, upscale_alpha

        check_image(image)
        frames, height, width, channels = image.shape
        size = upsr_model.pipe.scale * height, upsr_model.pipe.scale * width
        device = mm.intermediate_device()
        mask, weight = empty_mask(frames, *size, device), empty_mask(frames, *size, device)
        heat, fast = empty_image(frames, 3, *size, device), empty_image(frames, max(3, channels), *size, device)
        results = []
        with shown(show_at_node(cls.hidden.unique_id)), upsr_model.running(height, width) as pipe:
            progress = NodeProgress(frames)
            for index in range(frames):
                rgb, alpha = frame_of(image, index)
                lr = opaque(rgb, alpha)
                result = pipe.super_resolve(lr, progress.listener(index))
                psi, sr = pipe.estimate_uncertainty(lr, sr=result)
                put_frame(mask, index, (psi / psi_max).clamp(max=1))
                put_frame(heat, index, heat_map(psi, psi_max))
                put_frame(weight, index, noise_weight(psi, psi_max, weight_min))
                if alpha is not None:
                    sr = torch.cat([sr, upscale_alpha(alpha, pipe.scale).to(sr)], dim=1)
                put_frame(fast, index, sr)
                results.append(result.to(device))
        return io.NodeOutput(mask, heat, fast, weight, SharedSR(results, image, weakref.ref(upsr_model.pipe.sr_net)))
