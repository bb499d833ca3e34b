"""The SR network's images, which Estimate Uncertainty computes and UPSR Sample can take."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from comfy_api.latest import io

from .hosted_model import UPSRModel

SharedSRType = io.Custom("UPSR_SR")


@dataclass(frozen=True)
class SharedSR:
    """Value of a UPSR_SR wire.

    The image on the wire *fast SR* would not do: clipped and without its padding, it gives other pixels at the border.

    Attributes:
        frames: G of each image, as `UPSRPipeline.super_resolve` returns it.
        image: the batch they were computed from.
        network: the SR network they were computed by; weak, since ComfyUI decides how long a model stays.
    """

    frames: list[torch.Tensor]
    image: torch.Tensor
    network: weakref.ref[torch.nn.Module]

    def check(self, upsr_model: UPSRModel, image: torch.Tensor) -> None:
        """Raise ValueError unless it was computed by this model from this batch."""
        if self.network() is not upsr_model.pipe.sr_net:
            raise ValueError("sr is of another model; connect both nodes to the same Load UPSR, or leave sr out")
        if self.image is not image and not torch.equal(self.image, image):
            raise ValueError("sr is of another image; connect both nodes to the same image, or leave sr out")
