"""An SR network g of plain convolutions, for CPUs: several times ATD's arithmetic in the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import nn

from ..diffusers_hook import registered_with_diffusers
from ..resampling import upsample
from .attention import start_at_zero
from .complete_weights import CompleteWeights
from .config_bounds import check_whole_numbers
from .sr_output import SRNetOutput
from .winograd import Conv3x3

_BOUNDS = {"scale": (1, 16), "in_channels": (1, 64), "channels": (1, 4096), "num_blocks": (1, 1024)}


class ConvBlock(nn.Module):
    """Two 3x3 convolutions beside the identity, without norms, as in EDSR (CVPRW 2017)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = Conv3x3(channels, channels)
        self.conv2 = Conv3x3(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


@registered_with_diffusers
class ConvSRModel(CompleteWeights, ConfigMixin):
    """SR network g of residual blocks at LR size, which takes the place of `ATDModel`. Not in the paper.

    Its result at a pixel depends on ``2 * num_blocks + 3`` LR pixels to each side and on nothing else, where ATD's
    category attention sees the whole image.

    Args:
        scale: super-resolution factor.
        in_channels: colour channels.
        channels: width of the features.
        num_blocks: residual blocks of two convolutions.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("ConvBlock",)
    _gradient_checkpointing_func: Callable[..., Any]

    @register_to_config
    def __init__(self, *, scale: int = 4, in_channels: int = 3, channels: int = 64, num_blocks: int = 12):
        super().__init__()
        check_whole_numbers(self.config, _BOUNDS)
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(channels) for _ in range(num_blocks))
        self.conv_body = Conv3x3(channels, channels)
        self.conv_out = nn.Conv2d(channels, in_channels * scale**2, 3, padding=1)
        start_at_zero(self.conv_out)
        self.gradient_checkpointing = False

    def forward(self, lr: torch.Tensor, return_dict: bool = True) -> SRNetOutput | tuple[torch.Tensor]:
        """Super-resolve an image.

        Args:
            lr: (B,in_channels,h,w) in [0,1], any size from 1x1.
            return_dict: return an `SRNetOutput` instead of a tuple.

        Returns:
            (B,in_channels,scale*h,scale*w) in [0,1] units, not clipped: the bicubically upsampled input and what the
            network adds.
        """
        scale = self.config.scale
        stem = self.conv_in((2 * lr - 1).contiguous(memory_format=torch.channels_last))
        h = stem
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                h = self._gradient_checkpointing_func(block, h)
            else:
                h = block(h)
        h = self.conv_body(h) + stem
        out = upsample(lr, scale) + F.pixel_shuffle(self.conv_out(h), scale) / 2
        return SRNetOutput(sample=out) if return_dict else (out,)
