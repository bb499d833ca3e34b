"""3x3 convolutions with a quarter of the multiplications, for inference on CPUs.

Winograd's F(4x4, 3x3) (Lavin and Gray, CVPR 2016, section 4.3) computes 4x4 outputs from 6x6 inputs with 36 products
where the sums over the kernel take 144: inputs and kernel are transformed, multiplied, and transformed back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from .kept import KeepsDerived

# The transforms cost time in proportion to the channels, what they save grows with the square.
LEAST_CHANNELS = 96
# The transformed kernels are four times as large: for fewer patches, reading them takes longer than they save.
LEAST_PATCHES = 64
# Size of one part's transformed patches. Larger parts do not fit the processor's cache; but every part reads the whole
# kernel, so none should be much smaller than the kernel.
PART_ELEMENTS = 2**20
LEAST_PART_OF_KERNEL = 0.5
# Outputs of a patch along one side.
PATCH = 4


@dataclass(frozen=True)
class Transform:
    """The three matrices of a transform, each for one axis: P products make 4 pixels of the output.

    Attributes:
        step: pixels of the input from a patch to the next.
        inputs: (P,window), for the pixels of the input that a patch depends on.
        kernel: (P,3).
        outputs: (4,P).
    """

    step: int
    inputs: torch.Tensor
    kernel: torch.Tensor
    outputs: torch.Tensor


_INPUTS = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = torch.tensor([[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUTPUTS = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
PLAIN = Transform(PATCH, _INPUTS, _KERNEL, _OUTPUTS)

# After nearest-neighbour upsampling the six inputs are a b b c c d, of which the third row makes 0: five products do.
_DOUBLED = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_NOT_ZERO = [0, 1, 3, 4, 5]
UPSAMPLED = Transform(PATCH // 2, (_INPUTS @ _DOUBLED)[_NOT_ZERO], _KERNEL[_NOT_ZERO], _OUTPUTS[:, _NOT_ZERO])


class WinogradConv(KeepsDerived, nn.Conv2d):
    """A 3x3 convolution of stride 1 with one pixel of zeros around, and another way to compute it.

    The two ways differ by rounding, some 3e-6 of the result's magnitude.
    """

    transform: ClassVar[Transform]

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def pays(self, x: torch.Tensor) -> bool:
        """Whether `winograd` can take ``x`` (B,C,H,W), and is faster: at inference on a CPU in float32."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or self.weight.dtype != torch.float32:
            return False
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return False
        patches = x.shape[0] * x.shape[-2] * x.shape[-1] // self.transform.step**2
        return min(self.in_channels, self.out_channels) >= LEAST_CHANNELS and patches >= LEAST_PATCHES

    def winograd(self, x: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) to (B,C',H,W), or to twice H and W for upsampled ones."""
        transform = self.transform
        kernel = self.derived("products", self.weight, self.weight.dtype, self._kernel_products)
        count, channels, features = kernel.shape
        step, window, widest = transform.step, transform.inputs.shape[1], max(channels, features)
        batch, _, height, width = x.shape
        rows, columns = -(-height // step), -(-width // step)
        x = x.contiguous(memory_format=torch.channels_last)
        out = x.new_empty(batch, rows, PATCH, columns, PATCH, features)
        elements = max(PART_ELEMENTS, int(LEAST_PART_OF_KERNEL * kernel.numel()))
        most = min(rows, max(1, elements // (count * batch * columns * widest)))
        # Two buffers for all parts: fresh pages cost as much as a transform.
        here, there = x.new_empty(2, max(count, window**2) * batch * most * columns * widest)
        for start in range(0, rows, most):
            part = min(most, rows - start)
            places = batch * part * columns
            # A negative padding crops.
            above, below = 1 - start * step, (start + part) * step + 1 - height
            strip = F.pad(x, (1, columns * step + 1 - width, above, below))
            windows = strip.unfold(2, window, step).unfold(3, window, step).permute(4, 5, 0, 2, 3, 1)
            pixels = _view(here, windows.shape).copy_(windows)
            factors = _along_both_axes(transform.inputs, pixels, there, out=here)
            products = _view(there, (count, places, features))
            torch.bmm(factors.view(count, places, channels), kernel, out=products)
            results = _along_both_axes(transform.outputs, products, here, out=there)
            patches = results.view(PATCH, PATCH, batch, part, columns, features).permute(2, 3, 0, 4, 1, 5)
            torch.add(patches, cast(torch.Tensor, self.bias), out=out[:, start : start + part])
        grown = PATCH // step
        image = out.view(batch, rows * PATCH, columns * PATCH, features)
        image = image[:, : grown * height, : grown * width].permute(0, 3, 1, 2)
        return image.contiguous(memory_format=torch.channels_last)

    def _kernel_products(self) -> torch.Tensor:
        """The kernels as factors of the products, (P*P,C,C')."""
        matrix = self.transform.kernel
        taps = self.weight.permute(2, 3, 1, 0).reshape(9, -1)
        return (torch.kron(matrix, matrix) @ taps).view(-1, self.in_channels, self.out_channels)


class Conv3x3(WinogradConv):
    """A 3x3 convolution of stride 1 with one pixel of zeros around."""

    transform = PLAIN

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) to (B,C',H,W)."""
        return self.winograd(x) if self.pays(x) else super().forward(x)


def _along_both_axes(
    matrix: torch.Tensor, values: torch.Tensor, between: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """matrix (m,k) times k*k values, first and second axis: (m,m,n), in the buffer ``out``, which may be theirs.

    One axis after the other: one product with the matrix of both has three times the multiplications, and took a fifth
    to a half more time.
    """
    after, before = matrix.shape
    half = torch.mm(matrix, values.view(before, -1), out=_view(between, (after, values.numel() // before)))
    half = half.view(after, before, -1)
    return torch.bmm(matrix.expand(after, -1, -1), half, out=_view(out, (after, after, half.shape[-1])))


def _view(buffer: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return buffer[: math.prod(shape)].view(shape)
