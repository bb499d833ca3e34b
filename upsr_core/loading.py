"""Where models come from: the bundled one, folders, the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.utils import is_accelerate_available

from .pipeline_upsr import UPSRPipeline

BUNDLED_MODEL = Path(__file__).parent / "checkpoints" / "upsr-tiny-x4"


def load_pipeline(
    model: str | Path | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    variant: str | None = None,
) -> UPSRPipeline:
    """Load a pipeline, ready to run.

    Args:
        model: a folder written by `save_pretrained` or `upsr convert`, a Hub repository id, or None for the small
            model that comes with the package.
        dtype: dtype of the networks, by default float32; the diffusion state is float32 in any case.
        device: where to put it; by default it stays on the CPU.
        variant: weights variant to read, such as ``"fp16"``.

    Raises:
        ValueError: nothing there, or what is there is no UPSR model; the message names the file or key.
    """
    source = BUNDLED_MODEL if model is None else model
    path = Path(source)
    is_hub_id = not path.exists() and not path.is_absolute() and len(path.parts) == 2
    if not is_hub_id and not (path / "model_index.json").is_file():
        raise ValueError(
            f"{source}: no such model folder (model_index.json is missing); name a folder written by save_pretrained "
            "or `upsr convert`, or a Hub repository id such as org/name"
        )
    try:
        pipe = UPSRPipeline.from_pretrained(
            str(source),
            dtype=dtype or torch.float32,
            variant=variant,
            # diffusers warns at every load where this needs accelerate and it is not installed.
            low_cpu_mem_usage=is_accelerate_available(),
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{source}: cannot be loaded as a UPSR model: {' '.join(str(error).split())}") from error
    return pipe.to(device) if device is not None else pipe
