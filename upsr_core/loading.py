"""Loading a model: the bundled one, a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from pathlib import Path

import torch
from diffusers.utils import is_accelerate_available

from .choices import DTYPES
from .messages import one_line
from .models.complete_weights import in_fast_layout
from .pipeline_upsr import UPSRPipeline
from .precision import automatic_dtype

# ORGANISATION/NAME, and nothing that only a path can be.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What diffusers raises on folders that are damaged or were altered.
UNLOADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError)
BUNDLED_MODEL = Path(__file__).parent / "checkpoints" / "upsr-tiny-x4"


def load_pipeline(
    model: str | Path | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    variant: str | None = None,
) -> UPSRPipeline:
    """Load a pipeline, ready to run.

    Args:
        model: a folder written by `save_pretrained` or `upsr convert`, a Hub repository id, or None for the small
            model that comes with the package.
        dtype: of the networks, ``torch.float16`` or ``"float16"`` and so on; by default float32. ``"auto"``: the
            denoiser in bfloat16 on CPUs that compute in it, see `precision.automatic_dtype`. The diffusion state is
            float32 in any case.
        device: where to put it; by default it stays on the CPU.
        variant: weights variant to read, such as ``"fp16"``.

    Raises:
        ValueError: nothing there, or what is there is no UPSR model; the message names the file or key.
    """
    if model == "":
        raise ValueError("the model's name is empty; leave it out for the bundled model")
    if variant is not None and not isinstance(variant, str):
        raise ValueError(f"variant must be a name such as 'fp16', not {variant!r}")
    if device is not None:
        _check_device(device)
    # ATD's categories jump with the rounding of bfloat16, and the result with them.
    automatic = {"unet": automatic_dtype(device or "cpu")[0], "default": torch.float32}
    dtypes = automatic if dtype == "auto" else _floating_dtype(dtype)
    source = str(BUNDLED_MODEL if model is None else model)
    path = Path(source)
    is_hub_id = not path.exists() and _HUB_ID.fullmatch(source) is not None
    if not is_hub_id and not (path / "model_index.json").is_file():
        raise ValueError(
            f"{source}: no such model folder (model_index.json is missing); name a folder written by save_pretrained "
            "or `upsr convert`, or a Hub repository id such as org/name"
        )
    try:
        pipe = UPSRPipeline.from_pretrained(
            source,
            dtype=dtypes,
            variant=variant,
            # Pickles, diffusers' older format, can run code.
            use_safetensors=True,
            # diffusers warns at every load where this needs accelerate and it is not installed.
            low_cpu_mem_usage=is_accelerate_available(),
        )
        _refuse_unknown_keys(pipe)
    except UNLOADABLE as error:
        if is_hub_id:
            raise ValueError(
                f"{source}: no such folder here, and no model by that name can be loaded from the Hugging Face Hub "
                f"({one_line(error, 200)})"
            ) from error
        raise ValueError(f"{source}: cannot be loaded as a UPSR model: {one_line(error)}") from error
    in_fast_layout(pipe.unet, pipe.sr_net)
    return pipe.to(device) if device is not None else pipe


def model_sha256(pipe: UPSRPipeline) -> str:
    """SHA-256, as hex, of the configurations and of the weights as they are loaded, in their type."""
    digest = hashlib.sha256()
    for name, component in sorted(pipe.components.items()):
        config = {key: value for key, value in component.config.items() if not key.startswith("_")}
        digest.update(f"{name} {json.dumps(config, sort_keys=True, default=str)}".encode())
        if isinstance(component, torch.nn.Module):
            for key, tensor in sorted(component.state_dict().items()):
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _floating_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype must be {', '.join(DTYPES)} or a floating torch.dtype, not {dtype!r}")
    return found


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!s} cannot be used: {one_line(error, 200)}") from error


def _refuse_unknown_keys(pipe: UPSRPipeline) -> None:
    """Keys of a configuration that nothing reads; diffusers keeps them."""
    for name, component in pipe.components.items():
        known = inspect.signature(type(component).__init__).parameters
        unknown = sorted(key for key in component.config if key not in known and not key.startswith("_"))
        if unknown:
            raise ValueError(
                f"the configuration of its {name} has an unknown key {unknown[0]!r}; it is damaged or newer"
            )
