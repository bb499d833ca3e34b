"""The smallest networks that have every part, for all tests."""

from __future__ import annotations

from typing import Any

import torch

from upsr_core import ATDModel, UNWScheduler, UPSRPipeline, UPSRUNet

# Two levels, so that there is a resampling, with Swin layers in both.
TINY_UNET: dict[str, Any] = {
    "image_size": 16,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "attention_resolutions": [16, 8],
    "swin_embed_dim": 32,
    "num_feat": 8,
    "shift_mask": "swin",
    "pad_multiple": 16,
}
TINY_ATD: dict[str, Any] = {
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 8,
    "category_size": 16,
    "num_tokens": 8,
    "reduced_dim": 4,
    "convffn_kernel_size": 3,
}
# One level and one layer, for trainings with crops of 8x8 LR pixels.
ONE_LEVEL_UNET: dict[str, Any] = {
    **TINY_UNET,
    "image_size": 8,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "attention_resolutions": [8],
    "mlp_ratio": 1.0,
    "pad_multiple": 8,
}
ONE_LAYER_ATD: dict[str, Any] = {**TINY_ATD, "depths": [1], "num_heads": [2]}


def build_tiny(scale: int = 4, *, sr_condition: bool = True, seed: int = 0, **unet: object) -> UPSRPipeline:
    """A pipeline with random weights that runs in milliseconds; nothing in it is zero-initialised."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = (
            UPSRUNet(**{**TINY_UNET, "scale": scale, "sr_condition": sr_condition, "global_residual": True, **unet}),
            ATDModel(**TINY_ATD, scale=scale, global_residual=True),
        )
        for network, gain in zip(networks, (1.0, 0.3), strict=True):
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.data.normal_(std=gain * parameter[0].numel() ** -0.5)
    pipe = UPSRPipeline(unet=networks[0].eval(), sr_net=networks[1].eval(), scheduler=UNWScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe
