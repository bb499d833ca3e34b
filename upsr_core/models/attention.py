"""Parts of both networks: shifted-window attention, and norms that compute in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .kept import KeepsDerived

ShiftMask = Literal["swin", "published"]
SHIFT_MASKS: tuple[str, ...] = ("swin", "published")
MASKED = -100.0


class GroupNorm(nn.GroupNorm):
    """GroupNorm that computes in float32 whatever the dtype of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes in float32 whatever the dtype of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def start_at_zero(layer: nn.Module) -> None:
    """Zero all weights of the last layer of a residual, which then starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


# With AVX-512, oneDNN's 1x1 convolution is about twice as fast as the matrix product; elsewhere it is at most as fast.
_CONVOLUTION_IS_FASTER = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _pixel_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(B,h,w,c), weight (d,c), bias (d) to (B,h,w,d)."""
    if x.device.type == "cpu" and _CONVOLUTION_IS_FASTER:
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return F.linear(x, weight, bias)


class PixelLinear(nn.Linear):
    """Linear layer over the channels of (B,h,w,c)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _pixel_product(x, self.weight, self.bias)


class PixelConv(nn.Conv2d):
    """1x1 convolution of (B,c,h,w) in channels_last, as the product of a matrix with every pixel."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _pixel_product(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


def relative_position_index(window_size: int) -> torch.Tensor:
    """Row of the bias table for each pair of tokens of a window: (N,N) int64, N = window_size**2."""
    coordinates = torch.cartesian_prod(torch.arange(window_size), torch.arange(window_size))
    offset = coordinates[:, None] - coordinates[None, :] + window_size - 1
    return offset[..., 0] * (2 * window_size - 1) + offset[..., 1]


def shift_masks(window_size: int, kind: ShiftMask) -> torch.Tensor:
    """Additive masks (3,N,N) of a shifted window in the last row, the last column, and the corner of both.

    After the cyclic shift those windows hold tokens from opposite borders of the image. ``swin`` keeps such tokens
    apart. ``published`` is what the published denoiser was trained with: windows of the last row are split by token
    column instead of token row, and the last column is not masked at all.
    """
    token = torch.arange(window_size**2)
    wrapped_row = token // window_size >= window_size - window_size // 2
    wrapped_column = token % window_size >= window_size - window_size // 2

    def apart(label: torch.Tensor) -> torch.Tensor:
        return MASKED * (label[:, None] != label[None, :]).float()

    if kind == "published":
        return torch.stack([apart(wrapped_column), torch.zeros(len(token), len(token)), apart(wrapped_column)])
    return torch.stack([apart(wrapped_row), apart(wrapped_column), apart(wrapped_row + 2 * wrapped_column)])


class WindowAttention(KeepsDerived):
    """Scaled-dot-product attention inside windows of ``window_size`` x ``window_size`` tokens.

    Takes queries, keys and values ready-made, since the SR network shares them between two attentions. A learned
    bias depends on the relative position of two tokens. With ``shifted`` the windows are displaced cyclically by half
    a window; only the windows of the last row and column then need a mask, so the others run without one.

    Args:
        num_heads: number of attention heads; the channels are split evenly among them.
        window_size: side of a window in tokens; the sides of the token grid must be multiples of it.
        shifted: displace the windows by ``window_size // 2``.
        shift_mask: which tokens of a shifted border window may see each other, see `shift_masks`.
    """

    position_index: torch.Tensor
    masks: torch.Tensor

    def __init__(self, num_heads: int, window_size: int, shifted: bool, shift_mask: ShiftMask = "swin"):
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.shift = window_size // 2 if shifted else 0
        self.relative_position_bias = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias, std=0.02)
        self.register_buffer("position_index", relative_position_index(window_size).flatten(), persistent=False)
        if shifted:
            self.register_buffer("masks", shift_masks(window_size, shift_mask), persistent=False)

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """(B,H,W,3*C), queries, keys and values in this order, to (B,H,W,C)."""
        table = self.relative_position_bias
        biases = self.derived("bias", table, qkv.dtype, lambda: self._biases(qkv.dtype))
        groups = self._window_groups(qkv.shape[:3], qkv.device)
        order = torch.cat([group.flatten() for group in groups])
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        windows = permute_rows(qkv.flatten(0, 2), order, inverse).split([group.numel() for group in groups])
        parts = [self._attend(part, bias) for part, bias in zip(windows, biases, strict=True) if len(part)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        return permute_rows(out, inverse, order).view(*qkv.shape[:3], -1)

    def _biases(self, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the similarity of two tokens in each group of windows, (groups,heads,N,N)."""
        tokens = self.window_size**2
        bias = self.relative_position_bias[self.position_index].view(tokens, tokens, self.num_heads)
        bias = bias.permute(2, 0, 1)[None].to(dtype, memory_format=torch.contiguous_format)
        return torch.cat([bias, bias + self.masks[:, None].to(dtype)]) if self.shift else bias

    def _window_groups(self, shape: Sequence[int], device: torch.device) -> list[torch.Tensor]:
        """Indices of the tokens, window by window, of each group of windows that share a mask.

        With a shift: all but the following, then those of the last row, of the last column, and of both.
        """
        size, shift = self.window_size, self.shift
        index = torch.arange(math.prod(shape), device=device).view(*shape)
        if shift:
            index = index.roll((-shift, -shift), dims=(1, 2))
        grid = rearrange(index, "b (i y) (j x) -> b i j (y x)", y=size, x=size)
        if not shift:
            return [grid]
        return [grid[:, :-1, :-1], grid[:, -1:, :-1], grid[:, :-1, -1:], grid[:, -1:, -1:]]

    def _attend(self, windows: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(n*N,3*C), window after window, to (n*N,C)."""
        q, k, v = windows.view(
            -1, self.window_size**2, 3, self.num_heads, windows.shape[1] // (3 * self.num_heads)
        ).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).reshape(len(windows), -1)


class _PermuteRows(torch.autograd.Function):
    """Rows in another order. Its gradient is the inverse permutation: PyTorch's own adds row by row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return permute_rows(gradient, inverse, order), None, None


def permute_rows(x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """x (n,c) with its rows in the order of ``order`` (n), whose inverse permutation is ``inverse`` (n)."""
    return _PermuteRows.apply(x, order, inverse) if x.requires_grad else x.index_select(0, order)
