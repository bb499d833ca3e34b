"""The commands of ``upsr`` that describe a model and this machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
from typing import Any

import torch
from huggingface_hub import constants

from ..loading import BUNDLED_MODEL, model_sha256
from ..memory import free_bytes
from ..pipeline_upsr import UPSRPipeline
from ..precision import automatic_dtype
from ..tile_choice import LARGEST_TILE, largest_tile
from .arguments import installed_version
from .commands import accelerator, load
from .output import say

PACKAGES = ("torch", "diffusers", "huggingface-hub", "safetensors", "numpy", "pillow", "opencv-python-headless")
OPTIONAL_PACKAGES = {"accelerate": "enable_model_cpu_offload and the trainer", "shtab": "upsr --print-completion"}


def info(args: argparse.Namespace) -> int:
    """``upsr info``; its exit status."""
    pipe = load(args)
    pipe.scheduler.set_timesteps()
    scheduler = pipe.scheduler.config
    facts = {
        "model": args.model or "bundled",
        "sha256": model_sha256(pipe),
        "scale": pipe.scale,
        "denoiser_parameters": pipe.unet.num_parameters(),
        "sr_net_parameters": pipe.sr_net.num_parameters(),
        "tile_multiple": pipe.tile_multiple,
        "steps": pipe.scheduler.num_inference_steps,
        "most_steps": scheduler.num_train_timesteps,
        "color_fix": scheduler.default_color_fix,
        "kappa": scheduler.kappa,
        "weight_min": scheduler.weight_min,
        "psi_max": scheduler.psi_max,
    }
    _tell(facts, args.json)
    return 0


def doctor(args: argparse.Namespace) -> int:
    """``upsr doctor``; its exit status."""
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe = load(args)
    automatic, reason = automatic_dtype(pipe.device)
    facts = {
        "versions": _versions(),
        "devices": _devices(),
        "chosen": {
            "device": str(pipe.device),
            "dtype": str(pipe.unet.dtype).removeprefix("torch."),
            "--dtype auto": f"{str(automatic).removeprefix('torch.')} for the denoiser: {reason}",
            "threads": torch.get_num_threads(),
            "tile": _tile(pipe),
        },
        "models": {
            "bundled": str(BUNDLED_MODEL),
            "--model FOLDER": "a folder written by save_pretrained or `upsr convert`",
            "--model ORG/NAME": f"the Hugging Face Hub, kept in {constants.HF_HUB_CACHE}",
            "offline": bool(constants.HF_HUB_OFFLINE),
        },
        "hints": _hints(),
    }
    _tell(facts, args.json)
    return 0


def _versions() -> dict[str, str]:
    versions = {"upsr": installed_version(), "python": platform.python_version(), "system": platform.platform()}
    for package in (*PACKAGES, *OPTIONAL_PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            purpose = OPTIONAL_PACKAGES.get(package)
            versions[package] = f"not installed (for {purpose})" if purpose else "not known"
    return versions


def _devices() -> dict[str, str]:
    """Free memory by device, as --device names it."""
    found = accelerator()
    count = torch.accelerator.device_count() if found else 0
    devices = [torch.device("cpu"), *(torch.device(found.type, i) for i in range(count) if found)]
    return {str(device): f"{free_bytes(device) / 2**30:.1f} GiB free{_model_of(device)}" for device in devices}


def _model_of(device: torch.device) -> str:
    if device.type in ("cuda", "xpu"):
        return f", {getattr(torch, device.type).get_device_name(device)}"
    return ""


def _tile(pipe: UPSRPipeline) -> str:
    side = largest_tile(pipe.unet, LARGEST_TILE, LARGEST_TILE, pipe.tile_multiple, free_bytes(pipe.device))
    return f"images of up to {side}x{side} pixels whole, larger ones in tiles of at most that"


def _hints() -> list[str]:
    if accelerator() is None and shutil.which("nvidia-smi"):
        return ["an NVIDIA GPU seems to be here, but this PyTorch cannot use it; see pytorch.org for the right build"]
    return []


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            say(name)
            for key, item in value.items():
                say(f"  {key:<24}{item}")
        elif isinstance(value, list):
            for item in value:
                say(f"{name.removesuffix('s')}: {item}")
        else:
            shown = f"{value:,}" if name.endswith("parameters") else value
            say(f"{name:<24}{shown}")
