"""Parts of the denoiser: residual blocks, Swin layers, and stages of both."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .attention import GroupNorm, PixelConv, PixelLinear, ShiftMask, WindowAttention, start_at_zero
from .winograd import Conv3x3

NORM_GROUPS = 32


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a residual; the time embedding scales and shifts the second norm."""

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, dropout: float):
        super().__init__()
        self.norm1 = GroupNorm(NORM_GROUPS, in_channels)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.time_proj = nn.Linear(time_channels, 2 * out_channels)
        self.norm2 = GroupNorm(NORM_GROUPS, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.shortcut = nn.Identity() if in_channels == out_channels else PixelConv(in_channels, out_channels)
        start_at_zero(self.conv2)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        scale, shift = self.time_proj(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(h)))


class SwinBlock(nn.Module):
    """Window attention and an MLP of 1x1 convolutions, each after a GroupNorm and with its own residual."""

    def __init__(
        self, channels: int, num_heads: int, window_size: int, shifted: bool, mlp_ratio: float, shift_mask: ShiftMask
    ):
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.norm1 = GroupNorm(NORM_GROUPS, channels)
        self.qkv = PixelLinear(channels, 3 * channels)
        self.attn = WindowAttention(num_heads, window_size, shifted, shift_mask)
        self.proj = PixelLinear(channels, channels)
        self.norm2 = GroupNorm(NORM_GROUPS, channels)
        self.mlp = nn.Sequential(PixelConv(channels, hidden), nn.GELU(), PixelConv(hidden, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm1(x).permute(0, 2, 3, 1)
        x = x + self.proj(self.attn(self.qkv(tokens))).permute(0, 3, 1, 2)
        return x + self.mlp(self.norm2(x))


class SwinLayer(nn.Module):
    """Swin blocks at their own width, between two 1x1 convolutions and without a residual around it all."""

    def __init__(self, channels: int, embed_dim: int, depth: int, shift_odd_blocks: bool, **block: Any):
        super().__init__()
        self.proj_in = PixelConv(channels, embed_dim)
        self.blocks = nn.ModuleList(
            SwinBlock(embed_dim, shifted=shift_odd_blocks and i % 2 == 1, **block) for i in range(depth)
        )
        self.proj_out = PixelConv(embed_dim, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj_in(x)
        for block in self.blocks:
            x = block(x)
        return self.proj_out(x)


class Stage(nn.Module):
    """A ResBlock, then a Swin layer and a resampling convolution where the position in the U-Net asks for them."""

    def __init__(self, resnet: ResBlock, attention: SwinLayer | None = None, resample: nn.Module | None = None):
        super().__init__()
        self.resnet = resnet
        self.attention = attention
        self.resample = resample

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x = self.resnet(x, time)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.resample is None else self.resample(x)
