"""What every SR network returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.utils import BaseOutput


@dataclass
class SRNetOutput(BaseOutput):
    """``sample``: (B,3,scale*h,scale*w), the super-resolved image in [0,1] units, not clipped."""

    sample: torch.Tensor
