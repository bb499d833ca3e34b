"""How large a tile the denoiser can take with the memory that is free."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.utils import logging

from .models import UPSRUNet
from .models.image_head import band_elements

logger = logging.get_logger(__name__)

# Share of the free memory to plan with: the rest is for the image's own tensors and for fragmentation.
USABLE_SHARE = 0.5
# Where the free memory is unknown (no /proc, no accelerator that tells): what any machine of today has.
ASSUMED_FREE_BYTES = 2 * 2**30
# Larger tiles gain nothing: the denoiser is trained on far smaller crops.
LARGEST_TILE = 512
LARGEST_BATCH = 8


def auto_tiling(unet: UPSRUNet, height: int, width: int, free: int) -> tuple[int, int]:
    """Tile side in LR pixels, and tiles per call, for a padded LR image of ``height`` x ``width``.

    Args:
        unet: the denoiser.
        height, width: multiples of its ``pad_multiple``.
        free: bytes that are free on its device.

    Returns:
        The image's larger side where the whole fits and is not too large, else the largest tile that does.
    """
    unit = unet.config.window_size * 2 ** (len(unet.config.channel_mult) - 1)
    budget = int(USABLE_SHARE * free)
    whole = max(height, width)
    if whole <= LARGEST_TILE and activation_bytes(unet, height * width) <= budget:
        return whole, _fitting_batch(unet, height * width, budget)
    side = max(unit, min(LARGEST_TILE, whole) // unit * unit)
    while side > unit and activation_bytes(unet, side * side) > budget:
        side -= unit
    if activation_bytes(unet, side * side) > budget:
        logger.warning("Little memory is free: even the smallest tile, %d LR pixels, may not fit.", side)
    return side, _fitting_batch(unet, side * side, budget)


def _fitting_batch(unet: UPSRUNet, pixels: int, budget: int) -> int:
    fitting = (size for size in range(LARGEST_BATCH, 1, -1) if activation_bytes(unet, size * pixels) <= budget)
    return next(fitting, 1)


def activation_bytes(unet: UPSRUNet, pixels: int) -> int:
    """Peak memory of one call on so many LR pixels, without weights and without gradients.

    Two places compete: the widest level of the U-Net with its skips and its Swin layer, and the image head, which
    works in bands at output resolution. A quarter is added for what convolutions need on the side.
    """
    config = unet.config
    skips = (2 + max(config.num_res_blocks)) * config.model_channels
    trunk = skips + max(6 * config.model_channels, (2 + 2 * config.mlp_ratio) * config.swin_embed_dim)
    before_bands = 2 * config.num_feat * (config.scale / 2) ** 2
    bands = 3 * min(band_elements(unet.device), pixels * config.num_feat * config.scale**2)
    itemsize = torch.empty(0, dtype=unet.dtype).element_size()
    return int(1.25 * itemsize * max(pixels * trunk, pixels * before_bands + bands))


def free_bytes(device: torch.device) -> int:
    """Memory a new tensor could take on ``device``."""
    if device.type in ("cuda", "xpu"):
        module = getattr(torch, device.type)
        free, _ = module.mem_get_info(device)
        return free + module.memory_reserved(device) - module.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return min(int(fields["MemAvailable"].split()[0]) * 1024, _cgroup_free_bytes())
    return ASSUMED_FREE_BYTES


def _cgroup_free_bytes() -> int:
    """What a container's memory limit leaves; unlimited where there is none."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except OSError:
        return 2**63
    return 2**63 if limit == "max" else max(0, int(limit) - used)
