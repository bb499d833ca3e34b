"""A batch of images of different sizes in one tensor, so that one call works on all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

Size = tuple[int, int]


def to_device(values: Sequence[object] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of host values on the device; the host does not wait for the device."""
    return torch.as_tensor(values).to(device, non_blocking=True)


@dataclass(frozen=True)
class RaggedImages:
    """Images of different sizes, each in the upper left corner of its canvas.

    Attributes:
        pixels: (B,C,H,W); what lies beyond an image's own size has no meaning, but is finite.
        sizes: (height,width) of each image, known on the host.
    """

    pixels: torch.Tensor
    sizes: tuple[Size, ...]

    @classmethod
    def whole(cls, pixels: torch.Tensor) -> RaggedImages:
        """Images (B,C,H,W) that fill their canvas."""
        return cls(pixels, ((pixels.shape[-2], pixels.shape[-1]),) * pixels.shape[0])

    @classmethod
    def packed(cls, images: Sequence[torch.Tensor]) -> RaggedImages:
        """From single images (1,C,h,w)."""
        sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
        height, width = canvas(sizes)
        padded = [F.pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(images, sizes, strict=True)]
        return cls(torch.cat(padded), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def image(self, index: int) -> torch.Tensor:
        """One image (1,C,h,w), without copying."""
        height, width = self.sizes[index]
        return self.pixels[index : index + 1, :, :height, :width]

    def map(self, function: Callable[[int, torch.Tensor], torch.Tensor]) -> RaggedImages:
        """Each image (1,C,h,w) on its own through ``function(index, image)``."""
        return RaggedImages.packed([function(i, self.image(i)) for i in range(len(self))])

    def extended(self, before: int, size: Size, mode: Literal["reflect", "replicate"]) -> torch.Tensor:
        """Images on a larger canvas, continued beyond their borders.

        Args:
            before: rows and columns above and left of each image.
            size: height and width of the canvas.
            mode: ``reflect`` needs images larger than ``before`` and continues them by as much below and right.

        Returns:
            (B,C,*size) with every image at (before,before).
        """
        height, width = self.sizes[0]
        if self.sizes == ((height, width),) * len(self):
            pads = (before, size[1] - before - width, before, size[0] - before - height)
            own = self.pixels[..., :height, :width]
            return F.pad(own, pads, mode=mode) if any(pads) else own
        channels = self.pixels.shape[1]
        last = to_device(self.sizes, self.pixels.device) - 1
        rows, columns = (_index(last[:, axis], before, size[axis], mode) for axis in (0, 1))
        taken = self.pixels.gather(2, rows[:, None, :, None].expand(-1, channels, -1, self.pixels.shape[3]))
        return taken.gather(3, columns[:, None, None, :].expand(-1, channels, size[0], -1))


def canvas(sizes: Sequence[Size]) -> Size:
    """The smallest size that holds all of them."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _index(last: torch.Tensor, before: int, size: int, mode: str) -> torch.Tensor:
    """Source index (B,size) of each position on the extended axis; ``last`` (B,) is the index of the last pixel."""
    last = last[:, None]
    position = torch.arange(-before, size - before, device=last.device)[None]
    if mode == "reflect":
        position = last - (last - position.abs()).abs()
    return torch.minimum(position.clamp(min=0), last)
