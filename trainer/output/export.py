"""From trained networks to a folder that `UPSRPipeline.from_pretrained` loads, and back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import ModelMixin

from trainer.output.atomic_folders import partial_folder, replace_folder, writing
from trainer.typed_yaml import ConfigError
from upsr_core import ATDModel, ConvSRModel, UNWScheduler, UPSRPipeline, UPSRUNet
from upsr_core.messages import one_line
from upsr_core.models import SRNet

Network = TypeVar("Network", bound=ModelMixin)
SR_NETS: dict[str, type[SRNet]] = {cls.__name__: cls for cls in (ATDModel, ConvSRModel)}


def export_sr_net(folder: Path, sr_net: SRNet) -> None:
    """Write a folder with g alone, while there is no denoiser for it; else as `export_pipeline`."""
    partial_folder(folder)
    with writing(folder) as partial:
        _contiguous(sr_net).save_pretrained(partial / "sr_net")
    replace_folder(partial, folder)


def export_pipeline(folder: Path, sr_net: SRNet, unet: UPSRUNet, scheduler: UNWScheduler) -> None:
    """Write a pipeline's folder.

    Raises:
        NotWrittenError: the disk is full; what was there before is as it was.
    """
    partial_folder(folder)
    with writing(folder) as partial:
        UPSRPipeline(_contiguous(unet), _contiguous(sr_net), scheduler).save_pretrained(partial)
    replace_folder(partial, folder)


def _contiguous(network: Network) -> Network:
    """A copy for safetensors: on the CPU, in the plain memory format, without the path that it was loaded from."""
    network = copy.deepcopy(network).cpu()
    network.register_to_config(_name_or_path="")
    return network.to(memory_format=torch.contiguous_format).requires_grad_(True)


def load_sr_net(folder: Path) -> SRNet:
    """g from its own folder or a pipeline's.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    source = folder / "sr_net" if (folder / "sr_net").is_dir() else folder
    if not (source / "config.json").is_file():
        raise ConfigError(f"{folder}: holds no sr_net; train stage sr_net first or set sr_net_from to its folder")
    try:
        name = ATDModel.load_config(source).get("_class_name")
        if name in SR_NETS:
            return SR_NETS[name].from_pretrained(source)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ConfigError(f"{source}: cannot be loaded: {one_line(error)}") from error
    raise ConfigError(f"{source}/config.json: _class_name is {name!r}; an SR network is {' or '.join(SR_NETS)}")
