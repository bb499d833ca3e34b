"""Published UPSR checkpoints to our model folders and back."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..loading import load_pipeline
from ..messages import one_line
from ..models import ATDModel, UPSRUNet
from ..models.attention import WindowAttention
from ..models.complete_weights import in_fast_layout
from ..pipeline_upsr import UPSRPipeline
from .config import build_published
from .names import published_names
from .roles import ROLE_KEYS

StateDict = dict[str, torch.Tensor]

# Exceptions of the two parsers on bytes that are no checkpoint.
NOT_A_CHECKPOINT = (
    *(SafetensorError, OSError, EOFError, RuntimeError, LookupError, ValueError, TypeError, AttributeError),
    *(MemoryError, OverflowError),
)
PAIR = ("denoiser.pth", "sr_net.pth")
DERIVED_BUFFERS = ("relative_position_index", "relative_position_index_SA", "attn_mask")


def read_state_dict(path: str | Path) -> StateDict:
    """Read a published checkpoint: ``.safetensors``, or a ``.pth`` that holds nothing but tensors.

    A ``.pth`` may be a bare state dict or hold one under ``params_ema`` (preferred) or ``params``; a prefix
    ``module.`` is dropped. Pickled code is never run.

    Raises:
        ValueError: the file is missing, damaged, wants to run code or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            _refuse_compressed(path)
            with warnings.catch_warnings():
                # Of unusual pickles, which are refused anyway.
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused, the file is damaged or holds pickled objects other than tensors, which could run code; "
            "ask its author for a .safetensors file"
        ) from error
    except NOT_A_CHECKPOINT as error:
        reason = str(error).splitlines()[0] if str(error) else "unexpected end of file"
        raise ValueError(f"{path}: not a readable checkpoint ({reason}); download it again") from error
    for name in ("params_ema", "params"):
        if isinstance(content, dict) and name in content:
            content = content[name]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(f"{path}: holds no state dict, at its top level or under 'params_ema' or 'params'")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _refuse_compressed(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # the older format, or damaged: the parser will tell
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its parts are compressed, as those of zip bombs are and torch.save leaves none")
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise ValueError("its parts are larger than itself, as those of zip bombs are")


def load_published(model: UPSRUNet | ATDModel, state: StateDict, source: str | Path) -> None:
    """Load a state dict under published names into ``model``, in float32; derived buffers are dropped.

    Raises:
        ValueError: a tensor is unknown, missing, of another shape or holds no finite numbers; the message lists them.
    """
    state = {key: value for key, value in state.items() if key.rsplit(".", 1)[-1] not in DERIVED_BUFFERS}
    own = model.state_dict()
    names = published_names(model)
    by_published = {published: ours for ours, published in names.items()}
    problems = [f"unknown key {key}" for key in state if key not in by_published]
    problems += [f"missing key {key}" for key in by_published if key not in state]
    problems += [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(own[ours].shape)}"
        for key, ours in by_published.items()
        if key in state and state[key].shape != own[ours].shape
    ]
    problems = problems or [
        f"{key} holds NaN, infinity or no floating numbers ({value.dtype})"
        for key, value in state.items()
        if not value.is_floating_point() or not value.isfinite().all()
    ]
    if problems:
        raise ValueError(
            f"{source}: does not fit {type(model).__name__} of this configuration (wrong file, or pass the --config it "
            f"was trained with): {'; '.join(problems)}"
        )
    model.load_state_dict({ours: state[published].float() for published, ours in by_published.items()})


def convert_published(
    denoiser: str | Path, sr_net: str | Path, out: str | Path | None = None, config: str | Path | None = None
) -> UPSRPipeline:
    """Build a pipeline from a pair of published checkpoints, and save it where ``out`` is given.

    Args:
        denoiser: ``.pth`` or ``.safetensors`` of the denoiser.
        sr_net: the same of the SR network.
        out: folder to write with `save_pretrained`; must not exist or be empty.
        config: JSON file with the configuration in the published code's terms; None for the published model.

    Raises:
        ValueError: a file is missing, unreadable or does not fit; ``out`` is in use.
    """
    if out is not None:
        _refuse_used(Path(out))
    unet, atd, scheduler = build_published(None if config is None else _read_config(config))
    for model, path in ((unet, denoiser), (atd, sr_net)):
        load_published(model, read_state_dict(path), path)
        model.eval()
    pipe = UPSRPipeline(unet=unet, sr_net=atd, scheduler=scheduler)
    if out is not None:
        with _whole_folder(Path(out)) as folder:
            pipe.save_pretrained(folder)
    in_fast_layout(unet, atd)
    return pipe


def _refuse_used(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists already; name a new folder")


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name ``out`` when it is whole.

    Raises:
        ValueError: it cannot be written; nothing is left behind.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        yield partial
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, 200)
        raise ValueError(f"{out}: cannot be written ({reason}); free some space or write elsewhere") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert_pair(first: str | Path, second: str | Path, config: str | Path | None = None) -> UPSRPipeline:
    """As `convert_published`, for two published checkpoints in any order.

    Raises:
        ValueError: they are not one denoiser and one SR network, or as `convert_published`.
    """
    roles = {_published_role(path): path for path in (first, second)}
    if len(roles) < 2:
        (role,) = roles
        raise ValueError(f"{first} and {second} both hold the {role}; a model is one denoiser and one SR network")
    return convert_published(roles["denoiser"], roles["SR network"], config=config)


def _published_role(path: str | Path) -> str:
    keys = read_state_dict(path)
    for role, key in ROLE_KEYS.items():
        if key in keys:
            return role
    raise ValueError(f"{path}: neither a denoiser nor an SR network of UPSR; its first key is {min(keys)!r}")


def _read_config(path: str | Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such configuration file") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object with denoiser, sr_net and diffusion")
    return content


def published_state_dict(model: UPSRUNet | ATDModel) -> StateDict:
    """State dict of ``model`` under published names, with the derived buffers a strict loader there expects."""
    names = published_names(model)
    state = {names[key]: value.contiguous() for key, value in model.state_dict().items()}
    attentions = {name: m for name, m in model.named_modules() if isinstance(m, WindowAttention)}
    if isinstance(model, ATDModel):
        index = next(iter(attentions.values())).position_index
        return state | {"relative_position_index_SA": _square(index)}
    for name, attention in attentions.items():
        published = names[f"{name}.relative_position_bias"].removesuffix(".attn.relative_position_bias_table")
        state[f"{published}.attn.relative_position_index"] = _square(attention.position_index)
        if attention.shift:
            state[f"{published}.attn_mask"] = _published_mask(attention, _level_size(name, model))
    return state


def _square(index: torch.Tensor) -> torch.Tensor:
    return index.view(int(index.numel() ** 0.5), -1).clone()


def _level_size(module_name: str, unet: UPSRUNet) -> int:
    """Token grid side, at the training size, of the level an attention module belongs to."""
    levels = len(unet.config.channel_mult)
    part, index = re.match(r"(\w+)\.(\d*)", module_name).groups()  # type: ignore[union-attr]
    if part == "down":
        level = sum(isinstance(module, torch.nn.Conv2d) for module in list(unet.down)[: int(index)])
    elif part == "up":
        level = levels - 1 - sum(module.resample is not None for module in list(unet.up)[: int(index)])
    else:
        level = levels - 1
    return unet.config.image_size // 2**level


def _published_mask(attention: WindowAttention, size: int) -> torch.Tensor:
    side = size // attention.window_size
    tokens = attention.window_size**2
    mask = torch.zeros(side, side, tokens, tokens)
    mask[-1] = attention.masks[0]
    return mask.flatten(0, 1)


def export_published(folder: str | Path, out: str | Path) -> tuple[Path, Path]:
    """Write a pipeline folder of ours as a pair of checkpoints for the published code.

    Returns:
        Paths of ``denoiser.pth`` and ``sr_net.pth`` in the folder ``out``, each ``{"params_ema": state_dict}``.

    Raises:
        ValueError: the published code cannot compute this model, or ``out`` is in use.
    """
    pipe = load_pipeline(folder)
    if not isinstance(pipe.sr_net, ATDModel):
        raise ValueError(f"{folder}: sr_net is a {type(pipe.sr_net).__name__}, which the published code does not have")
    for name, model in (("unet", pipe.unet), ("sr_net", pipe.sr_net)):
        if model.config.global_residual:
            raise ValueError(f"{folder}: {name} has global_residual, which the published code cannot compute")
    if pipe.unet.config.shift_mask != "published":
        raise ValueError(f"{folder}: unet was trained with shift_mask 'swin', the published code applies another mask")
    out = Path(out)
    _refuse_used(out)
    with _whole_folder(out) as partial:
        for name, model in zip(PAIR, (pipe.unet, pipe.sr_net), strict=True):
            torch.save({"params_ema": published_state_dict(model)}, partial / name)
    return out / PAIR[0], out / PAIR[1]
