"""A UPSR model under ComfyUI's memory management."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

if TYPE_CHECKING:
    from upsr_core import UPSRPipeline

UPSRModelType = io.Custom("UPSR_MODEL")

DTYPES = {"auto": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _Hosted(torch.nn.Module):
    """Holds a network for `ModelPatcher`, which writes attributes that diffusers' networks have read-only."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network


@dataclass(frozen=True)
class UPSRModel:
    """What goes along a UPSR_MODEL wire.

    Attributes:
        pipe: on whatever device ComfyUI has put it.
        patchers: ComfyUI's handles for moving its networks.
    """

    pipe: UPSRPipeline
    patchers: tuple[ModelPatcher, ...]

    @classmethod
    def host(cls, pipe: UPSRPipeline) -> UPSRModel:
        """Put a pipeline that is on the CPU into ComfyUI's hands."""
        load, offload = mm.get_torch_device(), mm.unet_offload_device()
        networks = (pipe.unet, pipe.sr_net)
        return cls(pipe, tuple(ModelPatcher(_Hosted(network), load, offload) for network in networks))

    def to_device(self, height: int, width: int, tile_size: int = 0) -> None:
        """Have ComfyUI load the networks, and free the memory to run them.

        Args:
            height, width: of the LR image.
            tile_size: of the tiles in LR pixels, 0 where they are chosen by the free memory.
        """
        from upsr_core.memory import wanted_bytes

        tile = (min(height, tile_size), min(width, tile_size)) if tile_size else (height, width)
        memory = max(wanted_bytes(network, *tile) for network in (self.pipe.unet, self.pipe.sr_net))
        # Layers of plain PyTorch are on one device or the other: nothing casts them at use.
        mm.load_models_gpu(list(self.patchers), memory_required=memory, force_full_load=True)
        for patcher in self.patchers:
            # --novram, and newer versions in their own ways, leave weights behind all the same.
            if any(tensor.device != patcher.load_device for tensor in patcher.model.parameters()):
                patcher.model.to(patcher.load_device)


def network_dtype(choice: str) -> torch.dtype:
    """The dtype for an entry of `DTYPES`; ``"auto"`` is ComfyUI's choice for the device and its start options."""
    automatic = mm.unet_dtype(device=mm.get_torch_device())
    # ComfyUI may name an 8-bit type, which only its own layers can compute with.
    return DTYPES[choice] or (automatic if automatic in DTYPES.values() else torch.float32)
