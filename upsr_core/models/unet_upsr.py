"""The UPSR denoiser: a Swin U-Net that works in pixel space and predicts the clean image (Sec. 3.4 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.utils import BaseOutput
from torch import nn

from ..diffusers_hook import registered_with_diffusers
from .attention import SHIFT_MASKS, ShiftMask, start_at_zero
from .complete_weights import CompleteWeights
from .config_bounds import check_lists, check_numbers, check_whole_numbers, check_windows
from .image_head import ImageHead, UpsampleConv
from .unet_blocks import NORM_GROUPS, ResBlock, Stage, SwinLayer
from .winograd import Conv3x3


@dataclass
class UPSRUNetOutput(BaseOutput):
    """``sample``: (B,3,scale*h,scale*w), the estimate of the clean image in [-1,1] units, not clipped."""

    sample: torch.Tensor


def denoiser_input(
    state: torch.Tensor, sr: torch.Tensor, upsampled: torch.Tensor, *, scale: int, sr_condition: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """``sample`` and ``condition`` of `UPSRUNet.forward`.

    Args:
        state: x_t, scaled by the scheduler's ``scale_model_input``, (B,C,s*h,s*w).
        sr, upsampled: the SR image G and the upsampled input Y in [-1,1], shaped like ``state``.
        scale: super-resolution factor s.
        sr_condition: of the network's configuration.
    """
    condition = torch.cat([sr, upsampled], dim=1) if sr_condition else upsampled
    return F.pixel_unshuffle(state, scale), F.pixel_unshuffle(condition, scale)


@registered_with_diffusers
class UPSRUNet(CompleteWeights, ConfigMixin):
    """Denoiser f of UPSR: predicts the clean image from a noisy state, the SR network's image and the upsampled input.

    The defaults are the published size (119,418,319 parameters).

    Args:
        scale: super-resolution factor s, one of 1, 2, 4, 8; also the factor of the pixel (un)shuffle.
        out_channels: colour channels of the image.
        sr_condition: condition on the SR image and the upsampled input; False leaves out the SR image (Table 1, without
            the SR condition).
        image_size: LR side the network is trained at. Levels no larger than a window at this size never shift it.
        model_channels: width of the first level.
        channel_mult: width of each level as a multiple of ``model_channels``.
        num_res_blocks: ResBlocks of each level.
        attention_resolutions: sides, at ``image_size``, of the levels that get Swin layers.
        swin_depth: blocks of a Swin layer.
        swin_embed_dim: width of the Swin layers, a multiple of 32.
        window_size: side of an attention window.
        num_head_channels: channels of one attention head.
        mlp_ratio: width of the Swin MLPs relative to ``swin_embed_dim``.
        num_feat: width of the image head.
        dropout: dropout probability in the ResBlocks.
        shift_mask: ``"swin"`` for the usual mask of shifted windows, ``"published"`` for the one the published weights
            were trained with (see docs/method.md).
        global_residual: the output is added to the first image of the condition; the last convolution starts at zero.
        pad_multiple: the LR image is padded to a multiple of this before it reaches the network.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("ResBlock", "SwinLayer")

    @register_to_config
    def __init__(
        self,
        *,
        scale: int = 4,
        out_channels: int = 3,
        sr_condition: bool = True,
        image_size: int = 64,
        model_channels: int = 160,
        channel_mult: Sequence[int] = (1, 2, 2, 4),
        num_res_blocks: Sequence[int] = (2, 2, 2, 2),
        attention_resolutions: Sequence[int] = (64, 32, 16, 8),
        swin_depth: int = 2,
        swin_embed_dim: int = 192,
        window_size: int = 8,
        num_head_channels: int = 32,
        mlp_ratio: float = 4.0,
        num_feat: int = 128,
        dropout: float = 0.0,
        shift_mask: ShiftMask = "published",
        global_residual: bool = False,
        pad_multiple: int = 64,
    ):
        super().__init__()
        _check_config(self.config)
        self.gradient_checkpointing = False
        widths = [model_channels * multiple for multiple in channel_mult]
        sizes = [image_size // 2**level for level in range(len(widths))]
        last = len(widths) - 1
        time_channels = 4 * model_channels
        # After the pixel unshuffle; the condition is one image or two.
        self.state_channels = out_channels * scale**2
        self.condition_channels = (2 if sr_condition else 1) * self.state_channels

        def resnet(channels_in: int, channels_out: int) -> ResBlock:
            return ResBlock(channels_in, channels_out, time_channels, dropout)

        def attention(level: int) -> SwinLayer:
            return SwinLayer(
                widths[level],
                swin_embed_dim,
                swin_depth,
                shift_odd_blocks=sizes[level] > window_size,
                num_heads=swin_embed_dim // num_head_channels,
                window_size=window_size,
                mlp_ratio=mlp_ratio,
                shift_mask=shift_mask,
            )

        def attention_after_first(index: int, level: int) -> SwinLayer | None:
            return attention(level) if index == 0 and sizes[level] in attention_resolutions else None

        self.time_proj = Timesteps(model_channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(model_channels, time_channels)
        self.conv_in = Conv3x3(self.state_channels + self.condition_channels, model_channels)

        self.down = nn.ModuleList()
        skips, channels = [model_channels], model_channels
        for level, width in enumerate(widths):
            for index in range(num_res_blocks[level]):
                self.down.append(Stage(resnet(channels, width), attention_after_first(index, level)))
                skips.append(channels := width)
            if level != last:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skips.append(channels)

        self.mid_in = Stage(resnet(channels, channels), attention(last))
        self.mid_out = Stage(resnet(channels, channels))

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for index in range(num_res_blocks[level] + 1):
                upsample = UpsampleConv(width) if level != 0 and index == num_res_blocks[level] else None
                block = resnet(channels + skips.pop(), width)
                self.up.append(Stage(block, attention_after_first(index, level), upsample))
                channels = width

        self.head = ImageHead(channels, num_feat, out_channels, scale)
        if global_residual:
            start_at_zero(self.head.conv_out)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        condition: torch.Tensor,
        return_dict: bool = True,
    ) -> UPSRUNetOutput | tuple[torch.Tensor]:
        """Predict the clean image.

        Args:
            sample: (B,C*s*s,h,w), unshuffled state x_t, scaled by the scheduler's ``scale_model_input``; h and w are
                multiples of ``lr_multiple``.
            timestep: step index 0..T-1 (0 the least noisy), an int or a tensor of shape () or (B,).
            condition: (B,2*C*s*s,h,w), pixel-unshuffled ``cat([sr, upsampled], dim=1)`` in [-1,1], or (B,C*s*s,h,w)
                without ``sr_condition``; `denoiser_input` makes both.
            return_dict: return a `UPSRUNetOutput` instead of a tuple.

        Returns:
            (B,out_channels,scale*h,scale*w), the estimate of x_0 in [-1,1] units.
        """
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        time = self.time_embedding(self.time_proj(timesteps).to(sample.dtype))

        # All that follows keeps this layout, in which convolutions run faster and linear layers need no copy.
        x = torch.cat([sample, condition], dim=1).contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down:
            x = self._run(stage, x, time) if isinstance(stage, Stage) else stage(x)
            skips.append(x)
        x = self._run(self.mid_in, x, time)
        x = self._run(self.mid_out, x, time)
        for stage in self.up:
            x = self._run(stage, torch.cat([x, skips.pop()], dim=1), time)

        image = self.head(x)
        if self.config.global_residual:
            image = image + F.pixel_shuffle(condition[:, : self.state_channels], self.config.scale)
        return UPSRUNetOutput(sample=image) if return_dict else (image,)

    @property
    def lr_multiple(self) -> int:
        """The sides of an LR image must be multiples of it: the windows of the smallest level."""
        return self.config.window_size * 2 ** (len(self.config.channel_mult) - 1)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict, dict, dict]:
        """As `ConfigMixin.extract_init_dict`; reads the keys of folders written before ``sr_condition``, too."""
        config_dict = dict(config_dict)
        folded, condition = (config_dict.pop(key, None) for key in ("in_channels", "cond_channels"))
        if folded is not None and condition is not None:
            config_dict.setdefault("sr_condition", condition > folded)
        return super().extract_init_dict(config_dict, **kwargs)

    def _run(self, stage: nn.Module, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(stage, x, time)
        return stage(x, time)


_BOUNDS = {
    "out_channels": (1, 64),
    "image_size": (1, 65536),
    "model_channels": (1, 2048),
    "channel_mult": (1, 16),
    "num_res_blocks": (1, 32),
    "swin_depth": (1, 64),
    "swin_embed_dim": (1, 4096),
    "window_size": (1, 256),
    "num_head_channels": (1, 4096),
    "num_feat": (1, 2048),
    "pad_multiple": (1, 65536),
}


def _check_config(config: Any) -> None:
    """Refuse configurations that cannot be built, each with one line that names the value to change."""
    check_whole_numbers(config, _BOUNDS)
    check_lists(config, ("channel_mult", "num_res_blocks", "attention_resolutions"))
    check_numbers(config, {"mlp_ratio": (0.01, 64), "dropout": (0, 1)})
    levels = len(config.channel_mult)
    check_windows((2 * levels + 1) * config.swin_depth, config.window_size)
    if config.scale not in (1, 2, 4, 8):
        raise ValueError(f"scale must be 1, 2, 4 or 8, not {config.scale}")
    if not isinstance(config.sr_condition, bool):
        raise ValueError(f"sr_condition must be true or false, not {config.sr_condition!r}")
    if len(config.num_res_blocks) != levels:
        raise ValueError(f"num_res_blocks must have {levels} entries like channel_mult, not {config.num_res_blocks}")
    if config.swin_embed_dim % NORM_GROUPS or config.swin_embed_dim % config.num_head_channels:
        raise ValueError(
            f"swin_embed_dim must be a multiple of {NORM_GROUPS} and of num_head_channels "
            f"({config.num_head_channels}), not {config.swin_embed_dim}"
        )
    if config.model_channels % NORM_GROUPS:
        raise ValueError(f"model_channels must be a multiple of {NORM_GROUPS}, not {config.model_channels}")
    if config.pad_multiple % (least := config.window_size * 2 ** (levels - 1)):
        raise ValueError(f"pad_multiple must be a multiple of window_size * 2**(levels-1) = {least}")
    if config.shift_mask not in SHIFT_MASKS:
        raise ValueError(f"shift_mask must be one of {SHIFT_MASKS}, not {config.shift_mask!r}")
