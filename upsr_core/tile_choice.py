"""Tiles by the free memory: what a call of a network takes, and how large tiles may be."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.utils import logging

from .compilation import compiled_tile, is_compiled
from .models import ConvSRModel, SRNet, UPSRUNet
from .models.image_head import band_elements
from .tiling import Tiling

logger = logging.get_logger(__name__)

# Share of the free memory to plan with: the rest is for the image's own tensors and for fragmentation.
USABLE_SHARE = 0.5
# Larger tiles gain nothing: the denoiser is trained on far smaller crops.
LARGEST_TILE = 512
LARGEST_BATCH = 8
# LR pixels per call above which several tiles at once are no faster, but take memory all the same.
BATCHED_PIXELS = 256**2
# Factor for what convolutions need beside their inputs and outputs.
WORKSPACE = 1.25


def choose_tiling(
    unet: UPSRUNet,
    images: int,
    height: int,
    width: int,
    unit: int,
    free: int,
    *,
    tile_size: int | None,
    overlap: int,
    tile_batch_size: int | None,
) -> Tiling:
    """The denoiser's tiling of a batch, with the tile side and tiles per call chosen where they are None.

    Args:
        unet: the denoiser.
        images: their number.
        height, width: of an LR image.
        unit: the tile side is a multiple of it.
        free: bytes that are free on the denoiser's device.
        tile_size: tile side in LR pixels; 0 for no tiles.
        overlap: LR pixels that tiles share.
        tile_batch_size: tiles per call.

    Raises:
        ValueError: the overlap is not smaller than a tile.
    """
    whole = max(height, width)
    side = whole if tile_size == 0 else tile_size
    if side is None:
        side = largest_tile(unet, height, width, unit, free)
        if is_compiled(unet):
            side = compiled_tile(side, unit)
        if side < whole:
            logger.info("Tiles of %d LR pixels fit into the free memory.", side)
    if side < whole and overlap >= side:
        if tile_size is None:
            raise ValueError(f"tile_overlap {overlap} must be below {side}: the memory has no larger tiles")
        raise ValueError(f"tile_overlap {overlap} must be smaller than tile_size {side}")
    tiling = Tiling(height, width, side, overlap, unit, one_size=is_compiled(unet))
    if tile_batch_size is None:
        tile_batch_size = tiles_per_call(unet, tiling.sides[0] * tiling.sides[1], free)
    return replace(tiling, batch_size=min(tile_batch_size, len(tiling.chunks(images))))


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
    """Free memory to ask for, in bytes: enough for ``tiles`` tiles per call of an LR image of this size.

    Without a ``tile_size`` it is the smallest amount with which `largest_tile` need not choose a smaller tile.
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
