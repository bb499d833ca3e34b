"""EstimateUncertainty: where the SR network is unsure, and what that makes of the noise."""

from __future__ import annotations

import comfy.model_management as mm
import torch
from comfy_api.latest import io

from .hosted_model import UPSRModel, UPSRModelType
from .images import check_image, frame_of, to_image, to_mask
from .notices import show_at_node, shown
from .progress import NodeProgress


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
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, upsr_model: UPSRModel, image: torch.Tensor, psi_max: float, weight_min: float) -> io.NodeOutput:
        """Frame by frame, with one on the device at a time."""
        from upsr_core.uncertainty import heat_map, noise_weight
        from upsr_core.upscaling import opaque, upscale_alpha

        check_image(image)
        pipe, device = upsr_model.pipe, mm.intermediate_device()
        results: dict[str, list[torch.Tensor]] = {"psi": [], "heat": [], "sr": [], "weight": []}
        with shown(show_at_node(cls.hidden.unique_id)):
            upsr_model.to_device(*image.shape[1:3])
            progress = NodeProgress(len(image))
            for index in range(len(image)):
                rgb, alpha = frame_of(image, index)
                psi, sr = pipe.estimate_uncertainty(opaque(rgb, alpha), progress.listener(index))
                results["psi"].append((psi / psi_max).clamp(max=1).mean(1, keepdim=True).to(device))
                results["heat"].append(heat_map(psi, psi_max).to(device))
                results["weight"].append(noise_weight(psi, psi_max, weight_min).mean(1, keepdim=True).to(device))
                sr = sr.to(device)
                results["sr"].append(
                    sr if alpha is None else torch.cat([sr, upscale_alpha(alpha, pipe.scale).to(sr)], 1)
                )
        return io.NodeOutput(
            to_mask(results["psi"]), to_image(results["heat"]), to_image(results["sr"]), to_mask(results["weight"])
        )
