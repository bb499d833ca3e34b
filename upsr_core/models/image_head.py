"""From the denoiser's features to pixels, with little memory and few operations at inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .winograd import UPSAMPLED, Conv3x3, WinogradConv

# Folding a kernel costs time in proportion to its size alone: below this many pixels it does not pay.
LEAST_FOLDED_PIXELS = 32 * 32
# Feature maps at output resolution are the largest tensors of the network. Bands keep each below this many elements,
# on a CPU small enough that the allocator recycles them (fresh pages cost more than the convolution's arithmetic).
BAND_ELEMENTS = {"cpu": 2**22}
BAND_ELEMENTS_ELSEWHERE = 2**27
LEAST_BAND_ROWS = 32


def band_elements(device: torch.device) -> int:
    """Elements of a feature map at output resolution that a band is cut to."""
    return BAND_ELEMENTS.get(device.type, BAND_ELEMENTS_ELSEWHERE)


class UpsampleConv(WinogradConv):
    """Nearest-neighbour x2, then a 3x3 convolution.

    At inference on a CPU in float32 the two go together by Winograd where there are many channels, and else are folded
    into one transposed 4x4 convolution of stride 2, 4/9 of the multiplications: each output pixel sees at most 2x2
    different input pixels.
    """

    transform = UPSAMPLED

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) to (B,C,2H,2W)."""
        if self.pays(x):
            return self.winograd(x)
        # In half precision oneDNN's transposed convolution is far slower than its convolution on some processors.
        folds = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
        if folds and x.shape[-2] * x.shape[-1] >= LEAST_FOLDED_PIXELS:
            kernel = self.derived("kernel", self.weight, self.weight.dtype, self._folded_kernel)
            return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))

    def _folded_kernel(self) -> torch.Tensor:
        """The kernel (in,out,4,4) of the transposed convolution."""
        # An even output row sees the input row above by kernel row 0 and its own by rows 1+2, an odd one its own by
        # rows 0+1 and the one below by row 2. The transposed kernel lists: below, own (even), own (odd), above.
        fold = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        rows = torch.tensordot(self.weight.float(), fold, dims=([2], [1]))
        kernel = torch.tensordot(rows, fold, dims=([2], [1]))
        return kernel.transpose(0, 1).to(self.weight.dtype, memory_format=torch.channels_last)


class ImageHead(nn.Module):
    """Convolutions and nearest-neighbour upsampling up to output resolution; takes the place of a VQGAN decoder.

    At inference the last part, at output resolution, runs in bands of rows. Neighbouring bands share the rows the
    kernels reach across, so the result is that of the whole image.
    """

    # Rows, before the last upsampling, that the three convolutions after it reach beyond a band.
    HALO = 2

    def __init__(self, in_channels: int, num_feat: int, out_channels: int, scale: int):
        super().__init__()
        self.conv_in = Conv3x3(in_channels, num_feat)
        self.upsample = nn.ModuleList(UpsampleConv(num_feat) for _ in range(scale.bit_length() - 1))
        self.conv_hr = Conv3x3(num_feat, num_feat)
        self.conv_out = nn.Conv2d(num_feat, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.conv_in(x), 0.01, inplace=True)
        for upsample in self.upsample[:-1]:
            x = F.leaky_relu(upsample(x), 0.2, inplace=True)
        rows = self._band_rows(x)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or rows >= x.shape[-2]:
            return self._full_resolution(x)
        return torch.cat([self._band(x, start, rows) for start in range(0, x.shape[-2], rows)], dim=-2)

    def _full_resolution(self, x: torch.Tensor) -> torch.Tensor:
        for upsample in self.upsample[-1:]:
            x = F.leaky_relu(upsample(x), 0.2, inplace=True)
        return self.conv_out(F.leaky_relu(self.conv_hr(x), 0.2, inplace=True))

    def _band_rows(self, x: torch.Tensor) -> int:
        growth = 2 if len(self.upsample) else 1
        row = x[:, :, 0].numel() * growth**2
        return max(LEAST_BAND_ROWS, band_elements(x.device) // row)

    def _band(self, x: torch.Tensor, start: int, rows: int) -> torch.Tensor:
        growth = 2 if len(self.upsample) else 1
        halo = self.HALO * (1 if growth == 2 else 2)
        top, bottom = max(0, start - halo), min(x.shape[-2], start + rows + halo)
        out = self._full_resolution(x[:, :, top:bottom])
        skip = growth * (start - top)
        return out[:, :, skip : skip + growth * min(rows, x.shape[-2] - start)]
