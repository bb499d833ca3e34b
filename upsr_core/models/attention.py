"""Parts of both networks: shifted-window attention, and norms that compute in float32."""

from __future__ import annotations

from typing import Literal

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
        return F.group_norm(_norm_input(x), self.num_groups, weight, bias, self.eps).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes in float32 whatever the dtype of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(_norm_input(x), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def _norm_input(x: torch.Tensor) -> torch.Tensor:
    # On CPUs norms with float32 weights compute in float32 by themselves, without two copies of the image.
    return x if x.device.type == "cpu" else x.float()


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
    apart. ``published`` are the masks that the published denoiser was trained with: windows of the last row are split
    by token column instead of token row, and the last column is not masked at all.
    """
    token = torch.arange(window_size**2)
    wrapped_row = token // window_size >= window_size - window_size // 2
    wrapped_column = token % window_size >= window_size - window_size // 2

    def apart(label: torch.Tensor) -> torch.Tensor:
        return MASKED * (label[:, None] != label[None, :]).float()

    if kind == "published":
        return torch.stack([apart(wrapped_column), torch.zeros(len(token), len(token)), apart(wrapped_column)])
    return torch.stack([apart(wrapped_row), apart(wrapped_column), apart(wrapped_row + 2 * wrapped_column)])


# Up to so many tokens in a window, PyTorch's fused attention on a CPU gains nothing from a second thread: its matrix
# products are then too small for the cost of starting each one among several threads. Batched over all windows they are
# 1.5 to 2 times as fast with two threads, and a fifth slower with one.
UNFUSED_TOKENS = 128
SCORE_ELEMENTS = 2**20


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None = None, scale: float | None = None
) -> torch.Tensor:
    """Attention of (B,heads,N,d) with a bias (heads,N,N), fused wherever that is faster; scale 1/sqrt(d) by default."""
    unfused = (
        q.device.type == "cpu"
        and q.dtype == torch.float32
        and q.shape[-2] <= UNFUSED_TOKENS
        and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        and torch.get_num_threads() > 1
    )
    if not unfused:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None], scale=scale)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # Few windows at a time: their scores stay in the cache, and those of a large tile would take as much as all else.
    windows = max(1, SCORE_ELEMENTS // (q.shape[1] * q.shape[2] ** 2))
    parts = zip(q.split(windows), k.split(windows), v.split(windows), strict=True)
    return torch.cat([_attend_unfused(*part, bias, scale) for part in parts])


def _attend_unfused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None, scale: float
) -> torch.Tensor:
    scores = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        scores += bias
    return torch.softmax(scores, dim=-1) @ v


class WindowAttention(KeepsDerived):
    """Scaled-dot-product attention inside windows of ``window_size`` x ``window_size`` tokens.

    It takes queries, keys and values as they are, since the SR network shares them between two attentions. A learned
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
        self.masked_columns = shift_mask == "swin"
        if shifted:
            self.register_buffer("masks", shift_masks(window_size, shift_mask), persistent=False)

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """(B,H,W,3*C), queries, keys and values in this order, to (B,H,W,C)."""
        biases = self.derived("bias", self.relative_position_bias, qkv.dtype, lambda: self._biases(qkv.dtype))
        if qkv.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
            return self._by_tokens(qkv, biases)
        if self.shift:
            qkv = torch.roll(qkv, (-self.shift, -self.shift), dims=(1, 2))
        windows = rearrange(
            qkv,
            "b (i y) (j x) (qkv heads d) -> qkv b i j heads (y x) d",
            y=self.window_size, x=self.window_size, qkv=3, heads=self.num_heads,
        )  # fmt: skip
        out = self._shifted(windows, biases) if self.shift else self._attend(windows, biases[0])
        out = rearrange(out, "b i j heads (y x) d -> b (i y) (j x) (heads d)", y=self.window_size)
        return torch.roll(out, (self.shift, self.shift), dims=(1, 2)) if self.shift else out

    def _biases(self, dtype: torch.dtype) -> torch.Tensor:
        """The bias of two tokens (1,heads,N,N); with a shift (4,heads,N,N), with the masks of `shift_masks` as well."""
        tokens = self.window_size**2
        bias = self.relative_position_bias[self.position_index].view(tokens, tokens, self.num_heads)
        bias = bias.permute(2, 0, 1)[None].to(dtype, memory_format=torch.contiguous_format)
        return torch.cat([bias, bias + self.masks[:, None].to(dtype)]) if self.shift else bias

    def _by_tokens(self, qkv: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        """What `forward` computes, in fewer passes over the memory: whole tokens are copied, once each way.

        For inference: on CPUs the gradient of such a copy adds the tokens one after the other.
        """
        batch, height, width, channels = qkv.shape
        order, back = self.derived(
            f"order {batch} {height} {width}",
            self.relative_position_bias,
            torch.int64,
            lambda: self._order(batch, height, width),
        )
        tokens = qkv.reshape(-1, channels).index_select(0, order)
        windows = tokens.view(-1, self.window_size**2, 3, self.num_heads, channels // (3 * self.num_heads))
        counts = [part[..., 0].numel() for part in self._by_mask(qkv[:, :: self.window_size, :: self.window_size])]
        parts = []
        for part, bias in zip(windows.split(counts), biases, strict=False):  # `published` masks no columns
            if len(part):
                q, k, v = part.permute(2, 0, 3, 1, 4).unbind(0)
                parts.append(attend(q, k, v, bias).transpose(1, 2).reshape(-1, channels // 3))
        return torch.cat(parts).index_select(0, back).view(batch, height, width, channels // 3)

    def _order(self, batch: int, height: int, width: int) -> torch.Tensor:
        """Two permutations (2,B*H*W) of the tokens: to window order, windows of one mask together, and the inverse."""
        places = torch.arange(batch * height * width).view(batch, height, width)
        if self.shift:
            places = torch.roll(places, (-self.shift, -self.shift), dims=(1, 2))
        windows = rearrange(places, "b (i y) (j x) -> b i j (y x)", y=self.window_size, x=self.window_size)
        order = torch.cat([part.flatten() for part in self._by_mask(windows)])
        return torch.stack([order, torch.argsort(order)])

    def _by_mask(self, windows: torch.Tensor) -> list[torch.Tensor]:
        """Windows (B,I,J,...) in parts of one mask each, in the order of the biases."""
        if not self.shift:
            return [windows]
        inner, last = windows[:, :-1], windows[:, -1:]
        if not self.masked_columns:
            return [inner, last]
        return [part[:, :, columns] for columns in (slice(-1), slice(-1, None)) for part in (inner, last)]

    def _attend(self, windows: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = windows.flatten(1, 3).unbind(0)
        return attend(q, k, v, bias).view(windows.shape[1:])

    def _shifted(self, windows: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        inside, last_row, last_column, corner = biases
        inner, last = windows[:, :, :-1], windows[:, :, -1:]
        if not self.masked_columns:
            rows = [self._attend(inner, inside), self._attend(last, last_row)]
        else:
            rows = [
                torch.cat([self._attend(part[:, :, :, :-1], most), self._attend(part[:, :, :, -1:], end)], dim=2)
                for part, most, end in ((inner, inside, last_column), (last, last_row, corner))
            ]
        return torch.cat(rows, dim=1)
