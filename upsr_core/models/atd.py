"""The SR network g: a lightweight transformer with an adaptive token dictionary (ATD)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import nn

from ..diffusers_hook import registered_with_diffusers
from ..resampling import pad_to_multiple, upsample
from .attention import LayerNorm, PixelLinear, WindowAttention, attend, start_at_zero
from .complete_weights import CompleteWeights
from .config_bounds import check_lists, check_numbers, check_whole_numbers, check_windows
from .sr_output import SRNetOutput

MAX_LOGIT_SCALE = math.log(100)


class DictionaryAttention(nn.Module):
    """Cross attention from the image's tokens to the token dictionary, by cosine similarity."""

    def __init__(self, dim: int, num_tokens: int, reduced_dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_tokens))
        self.q = PixelLinear(dim, reduced_dim)
        self.k = nn.Linear(dim, reduced_dim)
        self.v = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, dictionary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,h,w,d), (B,m,d) to the attended values (B,h,w,d) and the float32 similarity (B,h*w,m), rows of sum 1."""
        q = F.normalize(self.q(x).flatten(1, 2).float(), dim=-1)
        k = F.normalize(self.k(dictionary).float(), dim=-1)
        sharpness = 1 + self.scale.float().clamp(0, 1) * math.log(dictionary.shape[1])
        similarity = torch.softmax(q @ (k * sharpness[:, None]).transpose(1, 2), dim=-1)
        return (similarity.to(x.dtype) @ self.v(dictionary)).view_as(x), similarity


class CategoryAttention(nn.Module):
    """Self-attention among tokens that resemble the same dictionary entry, wherever they are in the image."""

    def __init__(self, dim: int, num_heads: int, category_size: int):
        super().__init__()
        self.num_heads, self.category_size = num_heads, category_size
        self.logit_scale = nn.Parameter(torch.full((1, 1), math.log(10)))
        self.proj = PixelLinear(dim, dim)

    def forward(self, qkv: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        """(B,h,w,3*d) and the similarity (B,h*w,m) to (B,h,w,d)."""
        shape = qkv.shape[:3]
        qkv = qkv.flatten(1, 2)
        batch, n, _ = qkv.shape
        size = min(n, self.category_size)
        missing = -n % size
        # Not a stable sort: which of a category's tokens share a group follows torch.sort, as in the published model.
        order = torch.argsort(similarity.argmax(dim=-1), dim=-1)
        inverse = torch.empty_like(order).scatter_(1, order, torch.arange(n, device=order.device).expand_as(order))
        # The last group is filled up with the mirrored tail of the sorted tokens.
        order = torch.cat([order, order[:, n - missing :].flip(1)], dim=1)

        groups = _take_rows(qkv, order).view(-1, size, 3, self.num_heads, qkv.shape[-1] // (3 * self.num_heads))
        q, k, v = groups.permute(2, 0, 3, 1, 4).unbind(0)
        scale = self.logit_scale.float().clamp(max=MAX_LOGIT_SCALE).exp().to(q.dtype)
        out = attend(q * scale, k, v, scale=1.0)
        out = out.transpose(1, 2).reshape(batch, n + missing, -1)
        return self.proj(_take_rows(out, inverse).view(*shape, -1))


def _take_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x (B,n,c), index (B,k) -> (B,k,c). Whole rows are copied: far faster on CPU than an element-wise gather."""
    start = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (index + start).flatten()).view(*index.shape, x.shape[-1])


class ConvFFN(nn.Module):
    """MLP whose hidden features also pass a depthwise convolution."""

    def __init__(self, dim: int, hidden: int, kernel_size: int):
        super().__init__()
        self.fc1 = PixelLinear(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden)
        self.fc2 = PixelLinear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,h,w,d) to (B,h,w,d)."""
        x = F.gelu(self.fc1(x))
        local = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(x + F.gelu(local))


class ATDLayer(nn.Module):
    """Dictionary, category and window attention side by side, then a convolutional MLP.

    All but a group's last layer also refine the dictionary by the image's tokens (``updates_dictionary``).
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int,
        shifted: bool,
        category_size: int,
        num_tokens: int,
        reduced_dim: int,
        convffn_kernel_size: int,
        mlp_ratio: float,
        updates_dictionary: bool,
    ):
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.qkv = PixelLinear(dim, 3 * dim)
        self.dictionary_attn = DictionaryAttention(dim, num_tokens, reduced_dim)
        self.category_attn = CategoryAttention(dim, num_heads, category_size)
        self.window_attn = WindowAttention(num_heads, window_size, shifted)
        self.window_proj = PixelLinear(dim, dim)
        self.norm2 = LayerNorm(dim)
        self.ffn = ConvFFN(dim, int(dim * mlp_ratio), convffn_kernel_size)
        self.updates_dictionary = updates_dictionary
        if updates_dictionary:
            self.dictionary_norm = nn.InstanceNorm1d(num_tokens, affine=True)
            self.dictionary_keep = nn.Parameter(torch.zeros(num_tokens, 1))

    def forward(self, x: torch.Tensor, dictionary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B,h,w,d) and dictionary (B,m,d), rows of unit length, to both refined."""
        h = self.norm1(x)
        qkv = self.qkv(h)
        by_dictionary, similarity = self.dictionary_attn(h, dictionary)
        by_category = self.category_attn(qkv, similarity)
        by_window = self.window_proj(self.window_attn(qkv))
        x = x + (by_dictionary + by_category + by_window) / math.sqrt(3)
        x = x + self.ffn(self.norm2(x))
        if self.updates_dictionary:
            norm = self.dictionary_norm
            weight, bias = norm.weight.float(), norm.bias.float()
            share = F.instance_norm(similarity.transpose(1, 2), weight=weight, bias=bias, eps=norm.eps)
            gathered = share.softmax(dim=-1).to(x.dtype) @ x.flatten(1, 2)
            # Autocast multiplies in half precision, while the dictionary and the share that is kept stay float32.
            dictionary = torch.lerp(gathered.to(dictionary.dtype), dictionary, torch.sigmoid(self.dictionary_keep))
        return x, dictionary


class ATDGroup(nn.Module):
    """Layers that share one learned token dictionary, then a convolution and a norm, with a residual around it all."""

    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self, dim: int, depth: int, *, num_tokens: int, **layer: int | float):
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(num_tokens, dim))
        self.layers = nn.ModuleList(
            ATDLayer(
                dim,
                num_tokens=num_tokens,
                shifted=i % 2 == 1,
                updates_dictionary=i < depth - 1,
                **layer,  # type: ignore[arg-type]
            )
            for i in range(depth)
        )
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm = LayerNorm(dim)
        self.gradient_checkpointing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,h,w,d) to (B,h,w,d)."""
        h, dictionary = x, self.dictionary.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            dictionary = F.normalize(dictionary, dim=-1)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                h, dictionary = self._gradient_checkpointing_func(layer, h, dictionary)
            else:
                h, dictionary = layer(h, dictionary)
        return x + self.norm(_conv(self.conv, h))


def _conv(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Apply a convolution to (B,h,w,d): the permutes only relabel the channels_last layout."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


_BOUNDS = {
    "scale": (1, 16),
    "in_channels": (1, 64),
    "embed_dim": (1, 1024),
    "depths": (1, 64),
    "num_heads": (1, 64),
    "window_size": (1, 256),
    "category_size": (1, 65536),
    "num_tokens": (1, 4096),
    "reduced_dim": (1, 1024),
    "convffn_kernel_size": (1, 63),
}


@registered_with_diffusers
class ATDModel(CompleteWeights, ConfigMixin):
    """SR network g of UPSR, whose image conditions the denoiser and from which the uncertainty is estimated (Eq. 5).

    The defaults are the published size (2,532,360 parameters).

    Args:
        scale: super-resolution factor.
        in_channels: colour channels.
        embed_dim: width d, a multiple of every entry of ``num_heads``.
        depths: layers of each group.
        num_heads: attention heads of each group.
        window_size: side of an attention window; the image is mirror-padded to a multiple of it.
        category_size: tokens that attend to each other in the category attention.
        num_tokens: entries m of a token dictionary.
        reduced_dim: width of the queries and keys of the dictionary attention.
        convffn_kernel_size: odd kernel size of the MLPs' depthwise convolution.
        mlp_ratio: width of the MLPs relative to ``embed_dim``.
        img_range: range of the values inside the network, [-img_range, img_range].
        global_residual: the output is added to the bicubically upsampled input; the last convolution starts at zero.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("ATDGroup",)

    @register_to_config
    def __init__(
        self,
        *,
        scale: int = 4,
        in_channels: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: int = 16,
        category_size: int = 128,
        num_tokens: int = 64,
        reduced_dim: int = 8,
        convffn_kernel_size: int = 7,
        mlp_ratio: float = 1.0,
        img_range: float = 1.0,
        global_residual: bool = False,
    ):
        super().__init__()
        check_whole_numbers(self.config, _BOUNDS)
        check_lists(self.config, ("depths", "num_heads"))
        check_numbers(self.config, {"mlp_ratio": (0.01, 64), "img_range": (1e-3, 1e3)})
        check_windows(sum(depths), window_size)
        if len(num_heads) != len(depths):
            raise ValueError(f"num_heads must have {len(depths)} entries like depths, not {len(num_heads)}")
        if any(embed_dim % heads for heads in num_heads):
            raise ValueError(f"embed_dim {embed_dim} must be a multiple of every entry of num_heads {tuple(num_heads)}")
        if convffn_kernel_size % 2 == 0:
            raise ValueError(f"convffn_kernel_size must be odd, not {convffn_kernel_size}")
        self.conv_in = nn.Conv2d(in_channels, embed_dim, 3, padding=1)
        self.norm_in = LayerNorm(embed_dim)
        self.groups = nn.ModuleList(
            ATDGroup(
                embed_dim,
                depth,
                num_tokens=num_tokens,
                num_heads=heads,
                window_size=window_size,
                category_size=category_size,
                reduced_dim=reduced_dim,
                convffn_kernel_size=convffn_kernel_size,
                mlp_ratio=mlp_ratio,
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm_out = LayerNorm(embed_dim)
        self.conv_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_out = nn.Conv2d(embed_dim, in_channels * scale**2, 3, padding=1)
        if global_residual:
            start_at_zero(self.conv_out)

    def forward(self, lr: torch.Tensor, return_dict: bool = True) -> SRNetOutput | tuple[torch.Tensor]:
        """Super-resolve an image.

        Args:
            lr: (B,in_channels,h,w) in [0,1], any size from 1x1.
            return_dict: return an `SRNetOutput` instead of a tuple.

        Returns:
            (B,in_channels,scale*h,scale*w) in [0,1] units, not clipped.
        """
        height, width = lr.shape[-2:]
        scale, img_range = self.config.scale, self.config.img_range
        x = pad_to_multiple((2 * lr - 1) * img_range, self.config.window_size, mode="symmetric")

        # All that follows keeps this layout, in which tokens (B,h,w,d) and feature maps (B,d,h,w) share memory.
        stem = self.conv_in(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        h = self.norm_in(stem)
        for group in self.groups:
            h = group(h)
        h = _conv(self.conv_body, self.norm_out(h)) + stem
        out = F.pixel_shuffle(self.conv_out(h.permute(0, 3, 1, 2)), scale)
        out = (out[..., : scale * height, : scale * width] / img_range + 1) / 2
        if self.config.global_residual:
            # In [0,1] units the network's part is centred on 0, not 1/2.
            out = out - 0.5 + upsample(lr, scale)
        return SRNetOutput(sample=out) if return_dict else (out,)
