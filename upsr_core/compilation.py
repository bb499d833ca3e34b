"""torch.compile for the denoiser: what it needs, and the tiles that it suits."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any

from diffusers.utils.torch_utils import is_compiled_module

from .models import UPSRUNet

# Each size of tiles is compiled for itself, which takes a minute or more: images of all sizes share this one.
COMPILED_TILE = 128


def compile_denoiser(unet: UPSRUNet, **options: Any) -> None:
    """Have the denoiser compiled at its next call, and for each size of tiles anew.

    Args:
        unet: the denoiser; compiled in place.
        options: more arguments of ``torch.compile``.

    Raises:
        ValueError: the C++ compiler is missing with which PyTorch compiles for a CPU.
    """
    if unet.device.type == "cpu" and shutil.which(compiler := _compiler()) is None:
        raise ValueError(
            f"compiling for a CPU needs a C++ compiler, but {compiler} is not found; install it, name another one in "
            "the environment variable CXX, or do not compile"
        )
    unet.compile(dynamic=False, **options)


def is_compiled(unet: UPSRUNet) -> bool:
    """Whether it was compiled, in place or by ``torch.compile(unet)``."""
    return is_compiled_module(unet) or unet._compiled_call_impl is not None


def compiled_tile(tile_size: int, unit: int) -> int:
    """The side of tiles to compile for where ``tile_size``, a multiple of ``unit``, is the largest that fits."""
    return min(tile_size, max(unit, COMPILED_TILE // unit * unit))


def _compiler() -> str:
    """The C++ compiler that PyTorch calls."""
    return os.environ.get("CXX") or {"Darwin": "clang++", "Windows": "cl"}.get(platform.system(), "g++")
