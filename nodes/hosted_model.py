"""A UPSR model under ComfyUI's memory management."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .progress import cancellable

if TYPE_CHECKING:
    from upsr_core import UPSRPipeline

UPSRModelType = io.Custom("UPSR_MODEL")

NETWORK_DTYPES = {"auto": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _Hosted(torch.nn.Module):
    """Holds a network for `ModelPatcher`, which writes attributes that diffusers' networks have read-only."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network


@dataclass(frozen=True)
class UPSRModel:
    """Value of a UPSR_MODEL wire.

    Attributes:
        pipe: on the device that ComfyUI has put it on.
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

    @contextmanager
    def running(self, height: int, width: int, tile_size: int = 0, tile_batch_size: int = 0) -> Iterator[UPSRPipeline]:
        """The pipeline, ready to run on its device; it plans with the memory that ComfyUI leaves it.

        Args:
            height, width: of the LR image.
            tile_size: of the tiles in LR pixels, 0 where they are chosen by the free memory.
            tile_batch_size: tiles per call of the denoiser, 0 where that is chosen, too.
        """
        from upsr_core.memory import free_memory_as

        self._to_device(height, width, tile_size, tile_batch_size)
        with free_memory_as(free_memory), cancellable(self.pipe.unet, self.pipe.sr_net):
            yield self.pipe

    def _to_device(self, height: int, width: int, tile_size: int, tile_batch_size: int) -> None:
        """Have ComfyUI load the networks, and free the memory to run them."""
        from upsr_core.tile_choice import wanted_bytes

        memory = max(
            wanted_bytes(self.pipe.unet, height, width, tile_size, max(1, tile_batch_size)),
            wanted_bytes(self.pipe.sr_net, height, width),
        )
        # Layers of plain PyTorch are on one device or the other: nothing casts them at use.
        mm.load_models_gpu(list(self.patchers), memory_required=memory, force_full_load=True)
        for patcher in self.patchers:
            # --novram, and newer versions in their own ways, leave weights behind all the same.
            if any(tensor.device != patcher.load_device for tensor in patcher.model.parameters()):
                patcher.model.to(patcher.load_device)


def free_memory(device: torch.device) -> int:
    """Bytes that a node may use on ``device``: free ones, less those that --reserve-vram keeps for other programs."""
    from upsr_core.memory import measured_free_bytes

    # ComfyUI knows more kinds of devices, the library a container's limit.
    free = measured_free_bytes(device) if device.type == "cpu" else mm.get_free_memory(device)
    return max(0, int(free - mm.extra_reserved_memory()))


def network_dtype(choice: str) -> torch.dtype:
    """The dtype of an entry of `NETWORK_DTYPES`; ``"auto"`` is ComfyUI's choice for device and start options."""
    if (chosen := NETWORK_DTYPES[choice]) is not None:
        return chosen
    device = mm.get_torch_device()
    automatic = mm.unet_dtype(device=device)
    if automatic not in NETWORK_DTYPES.values():
        # An 8-bit type, which only ComfyUI's own layers can store: the type that they compute in on this device.
        automatic = mm.unet_manual_cast(automatic, device) or torch.float32
    return automatic
