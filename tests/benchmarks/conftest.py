"""A model and photos for the benchmarks to run on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from upsr_core import ATDModel, UNWScheduler, UPSRPipeline, UPSRUNet


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, which add a little noise to the bicubic image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UPSRUNet(
            image_size=16,
            model_channels=32,
            channel_mult=(1, 2),
            num_res_blocks=(1, 1),
            attention_resolutions=(16, 8),
            swin_embed_dim=32,
            num_feat=8,
            shift_mask="swin",
            pad_multiple=16,
            global_residual=True,
        )
        sr_net = ATDModel(
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 2),
            window_size=8,
            category_size=16,
            num_tokens=8,
            reduced_dim=4,
            convffn_kernel_size=3,
            global_residual=True,
        )
        for parameter in [*unet.parameters(), *sr_net.parameters()]:
            if parameter.ndim > 1:  # the last layers are zero to begin with
                parameter.data.normal_(std=0.3 * parameter[0].numel() ** -0.5)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    UPSRPipeline(unet=unet, sr_net=sr_net, scheduler=UNWScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image.resize((130, 98), Image.Resampling.BICUBIC).save(folder / name)
    return folder
