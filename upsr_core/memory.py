"""How large a tile the denoiser can take with the memory that is free."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from diffusers.utils import logging

from .models import UPSRUNet

logger = logging.get_logger(__name__)

# Share of the free memory to plan with: the rest is for the image's own tensors and for fragmentation.
USABLE_SHARE = 0.5
# Where the free memory is unknown (no /proc, no accelerator that tells): what any machine of today has.
ASSUMED_FREE_BYTES = 2 * 2**30
# Larger tiles gain nothing: the denoiser is trained on far smaller crops.
LARGEST_TILE = 512
LARGEST_BATCH = 8


def auto_tiling(unet: UPSRUNet, lr: torch.Tensor) -> tuple[int, int]:
    """Tile side in LR pixels and tiles per call for the padded LR batch (B,3,h,w), by the free memory of its device."""
    unit = unet.config.window_size * 2 ** (len(unet.config.channel_mult) - 1)
    budget = USABLE_SHARE * free_bytes(lr.device) / activation_bytes_per_pixel(unet)
    fitting_side = int(math.sqrt(budget)) // unit * unit
    height, width = lr.shape[-2:]
    if max(height, width) <= LARGEST_TILE and height * width <= budget:
        return max(height, width), _fitting_batch(budget, height * width)
    side = min(max(fitting_side, unit), LARGEST_TILE // unit * unit or unit)
    if fitting_side < unit:
        logger.warning("Less memory is free than the smallest tile (%d LR pixels) is likely to need.", unit)
    return side, _fitting_batch(budget, side * side)


def _fitting_batch(budget: float, pixels: int) -> int:
    return max(1, min(LARGEST_BATCH, int(budget // pixels)))


def activation_bytes_per_pixel(unet: UPSRUNet) -> int:
    """Peak memory of one call per LR pixel, without weights and without gradients.

    Two places compete: the image head, where three feature maps live at output resolution, and the widest level of
    the U-Net with its skips and its Swin layer. A quarter is added for what convolutions need on the side.
    """
    config = unet.config
    head = 3 * config.num_feat * config.scale**2
    skips = (2 + max(config.num_res_blocks)) * config.model_channels
    swin = (2 + 2 * config.mlp_ratio) * config.swin_embed_dim
    trunk = skips + max(6 * config.model_channels, swin)
    itemsize = torch.empty(0, dtype=unet.dtype).element_size()
    return int(1.25 * itemsize * max(head, trunk))


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
