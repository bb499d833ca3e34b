"""ST-LPIPS, a learned perceptual distance (Ghildyal and Liu, ECCV 2022), from weights that a package brings.

It is LPIPS with backbones that a shift of the image by a few pixels hardly changes: each pooling is a dense maximum and
then a blur. The package's wheel holds whole backbones, so nothing is downloaded; its code is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

WEIGHTS_PACKAGE = "stlpips_pytorch"
MIN_SIZE = 32


def load_weights(net: Literal["vgg", "alex"]) -> dict[str, torch.Tensor]:
    """The published state of ST-LPIPS, from the file in the installed package.

    Raises:
        FileNotFoundError: the package or its file is missing.
    """
    spec = find_spec(WEIGHTS_PACKAGE)
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    file = root / f"weights/vST0.0/{net}_shift_tolerant.pth" if root else None
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"ST-LPIPS's weights come with the package {WEIGHTS_PACKAGE}; run: pip install {WEIGHTS_PACKAGE}==0.0.2"
        )
    return torch.load(file, map_location="cpu", weights_only=True)


def backbone_convolutions(weights: dict[str, torch.Tensor]) -> Iterator[nn.Conv2d]:
    """The convolutions of a published state's backbone, first to last, with their weights."""
    for name in [name.removesuffix(".bias") for name in weights if name.startswith("net.") and name.endswith(".bias")]:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        channels, inputs, side, _ = weight.shape
        convolution = nn.Conv2d(inputs, channels, side, padding=min(2, side // 2))
        convolution.load_state_dict({"weight": weight, "bias": bias})
        yield convolution


class BlurPool(nn.Module):
    """Every second pixel of (B,C,H,W) after a binomial blur of 3x3; H and W at least 3.

    The published networks pad by 2 pixels, and not by the 1 that the blur needs: the sides become (H + 3) // 2.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B,C,H,W) to (B,C,(H+3)//2,(W+3)//2)."""
        line = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
        kernel = torch.outer(line, line).expand(image.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=image.shape[1])


def _vgg_slices(convolutions: Iterator[nn.Conv2d]) -> list[list[nn.Module]]:
    slices: list[list[nn.Module]] = []
    for count in (2, 2, 3, 3, 3):
        layers: list[nn.Module] = [nn.MaxPool2d(2, stride=1), BlurPool()] if slices else []
        for _ in range(count):
            layers += [next(convolutions), nn.ReLU()]
        slices.append(layers)
    return slices


def _alex_slices(convolutions: Iterator[nn.Conv2d]) -> list[list[nn.Module]]:
    return [
        [next(convolutions), BlurPool(), nn.ReLU()],
        [nn.MaxPool2d(3, stride=1), BlurPool(), next(convolutions), nn.ReLU()],
        [nn.MaxPool2d(3, stride=1), BlurPool(), next(convolutions), nn.ReLU()],
        [next(convolutions), nn.ReLU()],
        [next(convolutions), nn.ReLU()],
    ]


class STLPIPS(nn.Module):
    """Perceptual distance of images; 0 for equal ones, about 0.1 to 0.6 for a restored photo and its original.

    The distance is the sum over five feature maps of the mean over pixels of a weighted squared difference, after each
    pixel's features are scaled to length 1 (LPIPS, CVPR 2018, Eq. 1). No parameter is trained.

    Args:
        net: the backbone, ``vgg`` (VGG16) or ``alex`` (AlexNet).

    Raises:
        FileNotFoundError: the package with the weights is not installed.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, net: Literal["vgg", "alex"] = "vgg"):
        super().__init__()
        weights = load_weights(net)
        convolutions = backbone_convolutions(weights)
        slices = _vgg_slices(convolutions) if net == "vgg" else _alex_slices(convolutions)
        self.slices = nn.ModuleList(nn.Sequential(*layers) for layers in slices)
        self.register_buffer("shift", weights["scaling_layer.shift"])
        self.register_buffer("scale", weights["scaling_layer.scale"])
        for place in range(len(slices)):
            self.register_buffer(f"head{place}", weights[f"lin{place}.model.1.weight"])
        self.eval().requires_grad_(False)

    def forward(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Distances (B,) of two batches (B,3,H,W) in [-1,1], H and W at least 32; symmetric, values are not clipped.

        Raises:
            ValueError: the shapes differ, or the images are smaller.
        """
        if image.shape != reference.shape or image.ndim != 4 or min(image.shape[-2:]) < MIN_SIZE:
            shapes = f"{tuple(image.shape)} and {tuple(reference.shape)}"
            raise ValueError(
                f"images must be two batches (B,3,H,W) of one shape with sides of at least 32, not {shapes}"
            )
        total = image.new_zeros(len(image), dtype=torch.float32)
        a, b = ((x - self.shift) / self.scale for x in (image, reference))
        for place, layers in enumerate(self.slices):
            a, b = layers(a), layers(b)
            difference = (_unit(a) - _unit(b)).square()
            total = total + (difference * self.get_buffer(f"head{place}")).sum(1).mean((1, 2))
        return total


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Features of length 1 at each pixel, in float32; where all are 0 they stay 0, and so does their gradient."""
    features = features.float()
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)
