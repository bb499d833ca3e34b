"""The memory that is free, the tiles that fit into it, and calls of a network that fail in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from diffusers.utils import logging

from .models import ConvSRModel, SRNet, UPSRUNet
from .models.image_head import band_elements

logger = logging.get_logger(__name__)

# Share of the free memory to plan with: the rest is for the image's own tensors and for fragmentation.
USABLE_SHARE = 0.5
# The free memory where it is unknown (no /proc, no accelerator that tells): any machine of today has as much.
ASSUMED_FREE_BYTES = 2 * 2**30
# Larger tiles gain nothing: the denoiser is trained on far smaller crops.
LARGEST_TILE = 512
LARGEST_BATCH = 8
# LR pixels per call above which several tiles at once are no faster, but take memory all the same.
BATCHED_PIXELS = 256**2
# Factor for what convolutions need beside their inputs and outputs.
WORKSPACE = 1.25
# PyTorch has an exception class for this on some accelerators only.
OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")

_told: ContextVar[Callable[[torch.device], int] | None] = ContextVar("free memory as a host tells it", default=None)


def largest_tile(network: UPSRUNet | SRNet, height: int, width: int, unit: int, free: int) -> int:
    """Side in LR pixels of the largest tile ``network`` can take of an LR image of ``height`` x ``width``.

    Args:
        network: the denoiser or the SR network.
        height, width: of the image.
        unit: the side is a multiple of it, unless it is the image's own.
        free: bytes that are free on the network's device.

    Returns:
        The image's larger side where the whole fits and is not too large.
    """
    budget = int(USABLE_SHARE * free)
    whole = max(height, width)
    if whole <= LARGEST_TILE and activation_bytes(network, height * width) <= budget:
        return whole
    side = max(unit, min(LARGEST_TILE, whole) // unit * unit)
    while side > unit and activation_bytes(network, side * side) > budget:
        side -= unit
    if activation_bytes(network, side * side) > budget:
        logger.warning("Little memory is free: even the smallest tile, %d LR pixels, may not fit.", side)
    return side


def wanted_bytes(network: UPSRUNet | SRNet, height: int, width: int, tile_size: int = 0, tiles: int = 1) -> int:
    """The free memory that ``tiles`` per call take, of an LR image of this size.

    Without a ``tile_size`` it is the least with which `largest_tile` chooses as with any larger one.
    """
    most = LARGEST_TILE**2
    pixels = min(height, tile_size) * min(width, tile_size) if tile_size else min(height * width, most)
    return int(activation_bytes(network, tiles * pixels) / USABLE_SHARE)


def tiles_per_call(unet: UPSRUNet, pixels: int, free: int) -> int:
    """The number of tiles, of ``pixels`` LR pixels each, that the denoiser takes in one call; at least 1."""
    budget = int(USABLE_SHARE * free)
    most = min(LARGEST_BATCH, BATCHED_PIXELS // pixels)
    fitting = (size for size in range(most, 1, -1) if activation_bytes(unet, size * pixels) <= budget)
    return next(fitting, 1)


def activation_bytes(network: UPSRUNet | SRNet, pixels: int) -> int:
    """Peak memory of one call on ``pixels`` LR pixels, at inference; an estimate from above.

    Weights, and tensors derived from them that `keep_derived` keeps, come on top.
    """
    # torch.compile may have wrapped it.
    bare: UPSRUNet | SRNet = getattr(network, "_orig_mod", network)  # type: ignore[assignment]
    floats = _denoiser_floats(bare, pixels) if isinstance(bare, UPSRUNet) else _sr_floats(bare, pixels)
    itemsize = torch.empty(0, dtype=network.dtype).element_size()
    return int(WORKSPACE * itemsize * floats)


def _denoiser_floats(unet: UPSRUNet, pixels: int) -> float:
    """Three places compete: the widest level with its skips, at the first ResBlock of the way up, which gets twice the
    width and a skip, or in its Swin layer, at queries, keys and values; and the image head, which works in bands.
    """
    config = unet.config
    skips = (2 + max(config.num_res_blocks)) * config.model_channels
    swin = max(15, 2 + 2 * config.mlp_ratio) * config.swin_embed_dim
    trunk = skips + max(11 * config.model_channels, swin)
    before_bands = 2 * config.num_feat * (config.scale / 2) ** 2
    bands = 3 * min(band_elements(unet.device), pixels * config.num_feat * config.scale**2)
    return max(pixels * trunk, pixels * before_bands + bands)


def _sr_floats(sr_net: SRNet, pixels: int) -> float:
    """The widest point is inside a layer or a block, or at the image that is the result.

    In ATD's layers there are queries, keys and values three times over, and the three attentions' results.
    """
    config = sr_net.config
    if isinstance(sr_net, ConvSRModel):
        return pixels * (4 * config.channels + 3 * config.in_channels * config.scale**2)
    layer = (15 + 3 * config.mlp_ratio) * config.embed_dim + 2 * config.num_tokens
    return pixels * (layer + 3 * config.in_channels * config.scale**2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on any device."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def empty_cache(device: torch.device) -> None:
    """Release the memory of ``device`` that PyTorch holds but does not use."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).empty_cache()


def free_bytes(device: torch.device) -> int:
    """Memory to plan with on ``device``: what `free_memory_as` was given says, else `measured_free_bytes`."""
    return (_told.get() or measured_free_bytes)(device)


@contextmanager
def free_memory_as(told: Callable[[torch.device], int]) -> Iterator[None]:
    """Let a host that keeps memory for others say how many bytes of a device are free."""
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


def measured_free_bytes(device: torch.device) -> int:
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
    """Memory that a container's limit leaves; 2^63 without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except OSError:
        return 2**63
    return 2**63 if limit == "max" else max(0, int(limit) - used)


def call_network(network: UPSRUNet | SRNet, *inputs: torch.Tensor | int) -> torch.Tensor:
    """A network's output in float32; where half precision gives NaN or infinity, computed again in float32.

    Raises:
        ValueError: it is not finite in float32 either.
    """

    def cast(dtype: torch.dtype) -> list[torch.Tensor | int]:
        # Not the timestep: half precision has too few whole numbers for it.
        return [
            value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for value in inputs
        ]

    output = network(*cast(network.dtype), return_dict=False)[0].float()
    # A look at one number per call, which on an accelerator waits for it; a call takes far longer than that.
    if output.isfinite().all():
        return output
    name = type(network).__name__
    if network.dtype != torch.float32:
        logger.warning("%s gave NaN or infinity in %s; this tile again in float32.", name, network.dtype)
        # Borrowed float32 weights: the network itself, which is the caller's, stays as it is.
        state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        call = torch.func.functional_call
        output = call(network, state, tuple(cast(torch.float32)), {"return_dict": False})[0]
        if output.isfinite().all():
            return output
    raise ValueError(f"{name} gives NaN or infinity in float32, too: its weights are damaged or not a UPSR model's")
