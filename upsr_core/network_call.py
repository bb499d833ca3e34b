"""Calls of a network that go on in float32 where half precision fails."""

from __future__ import annotations

import torch
from diffusers.utils import logging

from .models import SRNet, UPSRUNet

logger = logging.get_logger(__name__)


def call_network(network: UPSRUNet | SRNet, *inputs: torch.Tensor | int) -> torch.Tensor:
    """A network's output in float32; where half precision gives NaN or infinity, computed again in float32.

    Raises:
        ValueError: it is not finite in float32 either.
    """

    def cast(dtype: torch.dtype) -> list[torch.Tensor | int]:
        # Not the timestep: half precision has too few whole numbers for it.
        return [
            value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for value in inputs
        ]

    output = network(*cast(network.dtype), return_dict=False)[0].float()
    # A look at one number per call, which on an accelerator waits for it; a call takes far longer than that.
    if output.isfinite().all():
        return output
    name = type(network).__name__
    if network.dtype != torch.float32:
        logger.warning("%s gave NaN or infinity in %s; this tile again in float32.", name, network.dtype)
        # Borrowed float32 weights: the network itself, which is the caller's, stays as it is.
        state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        call = torch.func.functional_call
        output = call(network, state, tuple(cast(torch.float32)), {"return_dict": False})[0]
        if output.isfinite().all():
            return output
    raise ValueError(f"{name} gives NaN or infinity in float32, too: its weights are damaged or not a UPSR model's")
