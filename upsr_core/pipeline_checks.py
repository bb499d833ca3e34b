"""Checks of the pipeline's arguments, before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .choices import COLOR_FIXES, LARGEST_NOISE
from .resampling import pad_to_multiple


def check_inputs(
    size: tuple[int, int, int],
    padding: int,
    tile_multiple: int,
    tensor_names: Sequence[str],
    *,
    stochasticity: float,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    noise: torch.Tensor | None,
    noise_strength: float,
    flat_threshold: float | None,
    sr: torch.Tensor | None,
    tile_size: int | None,
    tile_overlap: int,
    tile_batch_size: int | None,
    adaptive_steps: float | None,
    color_fix: str | None,
    output_type: str,
    tensor_inputs: Sequence[str],
    callbacks: Mapping[str, Any],
) -> None:
    """Refuse arguments of `UPSRPipeline.__call__` that are out of their range, shape or type, before any work.

    Args:
        size: images B, height s*h and width s*w of the output.
        padding: multiples to which the output's sides are padded inside.
        tile_multiple: multiples of LR pixels that tiles may have.
        tensor_names: names of tensors that ``callback_on_step_end`` can have.
        tensor_inputs: those that it asks for; the others are arguments of `UPSRPipeline.__call__`.
        callbacks: functions by the names of their arguments.

    Raises:
        ValueError: the message names the argument.
    """
    shares = {"stochasticity": (stochasticity, 1.0), "noise_strength": (noise_strength, LARGEST_NOISE)}
    if flat_threshold is not None:
        shares["flat_threshold"] = flat_threshold, 1.0
    for name, (value, high) in shares.items():
        if not isinstance(value, (int, float, np.number)) or not 0 <= value <= high:
            raise ValueError(f"{name} must be a number from 0 to {high:g}, not {value!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        if not isinstance(generator, Sequence) or any(not isinstance(g, torch.Generator) for g in generator):
            raise ValueError(f"generator must be a torch.Generator or a list of them, not {generator!r}")
        if len(generator) != size[0]:
            raise ValueError(f"generator has {len(generator)} entries for {size[0]} images; pass one per image")
    if noise is not None:
        check_padded("noise", noise, size, padding)
    if sr is not None:
        check_padded("sr", sr, size, padding)
    whole = (int, np.integer)
    if tile_size is not None and (not isinstance(tile_size, whole) or tile_size < 0 or tile_size % tile_multiple):
        raise ValueError(
            f"tile_size must be a multiple of {tile_multiple} LR pixels for this model, None (by the free memory) or 0 "
            f"(no tiles), not {tile_size!r}"
        )
    if not isinstance(tile_overlap, whole) or tile_overlap < 0:
        raise ValueError(f"tile_overlap must be a whole number of LR pixels of at least 0, not {tile_overlap!r}")
    if tile_batch_size is not None and (not isinstance(tile_batch_size, whole) or tile_batch_size < 1):
        raise ValueError(f"tile_batch_size must be a whole number of at least 1, not {tile_batch_size!r}")
    if adaptive_steps is not None and (
        not isinstance(adaptive_steps, (int, float, np.number)) or not 0 < adaptive_steps <= 1
    ):
        raise ValueError(f"adaptive_steps must be a number above 0 and at most 1, or None, not {adaptive_steps!r}")
    if color_fix not in (None, *COLOR_FIXES):
        raise ValueError(f"color_fix must be one of {', '.join(COLOR_FIXES)}, not {color_fix!r}")
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}")
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise ValueError(f"{name} must be a function, not {callback!r}")
    if not isinstance(tensor_inputs, Sequence):
        raise ValueError(f"callback_on_step_end_tensor_inputs must be a list of names, not {tensor_inputs!r}")
    unknown = [name for name in tensor_inputs if name not in tensor_names]
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs: no {unknown[0]!r} among {tensor_names}")


def padded_plane(name: str, plane: torch.Tensor | np.ndarray, size: tuple[int, int, int], padding: int) -> torch.Tensor:
    """The argument ``name``, checked and padded, as (1|B,1|3,s*h',s*w')."""
    batch, height, width = size
    try:
        if isinstance(plane, np.ndarray):
            # PyTorch knows neither negative strides nor other byte orders.
            plane = np.ascontiguousarray(plane, plane.dtype.newbyteorder("="))
        plane = torch.as_tensor(plane)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a tensor or an array, not {type(plane).__name__}") from error
    if plane.ndim in (2, 3):
        plane = plane[..., None, :, :]
    plane = plane.float() if plane.ndim == 4 else plane.float()[None]
    fits = plane.ndim == 4 and plane.shape[0] in (1, batch) and plane.shape[1] in (1, 3)
    if not fits or plane.shape[2:] != (height, width):
        raise ValueError(
            f"{name} must be ({height},{width}), ({batch},{height},{width}) or ({batch},1|3,{height},{width}), "
            f"the size of the output; not {tuple(plane.shape)}"
        )
    if not 0 <= plane.min() <= plane.max() <= LARGEST_NOISE:
        raise ValueError(f"{name} must be from 0 to {LARGEST_NOISE:g} everywhere, and not NaN")
    return pad_to_multiple(plane, padding)


def check_padded(name: str, image: torch.Tensor, size: tuple[int, int, int], padding: int) -> None:
    """Refuse an argument that is not finite, or not of the padded output size."""
    expected = (size[0], 3, *(side + -side % padding for side in size[1:]))
    if not isinstance(image, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, not {type(image).__name__}")
    if image.shape != expected:
        raise ValueError(f"{name} must have shape {expected} (padded size), not {tuple(image.shape)}")
    if not image.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values; pass finite ones")
