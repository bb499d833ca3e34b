"""VGG16's features and their distance, from weights that a package brings, so that nothing has to be downloaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from trainer.losses.perceptual import PerceptualLoss
from upsr_core.evaluation.st_lpips import backbone_convolutions, load_weights

# The last convolutions of VGG16's five groups, and the weights of their distances (Real-ESRGAN, ICCV Workshops 2021,
# section 3.3: {0.1, 0.1, 1, 1, 1}).
_GROUP_ENDS = (1, 3, 6, 9, 12)
_GROUP_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)


class VGGFeatureLoss(PerceptualLoss):
    """L1 distance of the features of VGG16's last convolution in each group, before activation and pooling.

    Each group's distance is divided by the mean magnitude of the target's features, since the groups differ by two
    orders of magnitude; then they are weighted as in Real-ESRGAN. Pooling is by plain maxima: the blurred pooling that
    the weights were tuned with is blind to a hatch of the highest frequencies, which a network would then draw.

    The weights are those of `STLPIPS`.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = load_weights("vgg")
        self.convolutions = nn.ModuleList(backbone_convolutions(weights))
        self.register_buffer("shift", weights["scaling_layer.shift"])
        self.register_buffer("scale", weights["scaling_layer.scale"])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean distance of images (B,3,H,W) in [-1,1], H and W at least 16; the estimate is not clipped."""
        with torch.no_grad():
            references = self.features(target)
        return self.distance(self.features(estimate), references)

    def features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The features that are compared, of images (B,3,H,W) in [-1,1]: (B,C,H/2^i,W/2^i) for group i of five."""
        features: list[torch.Tensor] = []
        hidden = ((image - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        for place, convolution in enumerate(self.convolutions):
            if place:
                hidden = F.relu(hidden)
            if place - 1 in _GROUP_ENDS:
                hidden = F.max_pool2d(hidden, 2)
            hidden = convolution(hidden)
            if place in _GROUP_ENDS:
                features.append(hidden)
        return features

    def distance(self, features: Sequence[torch.Tensor], references: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean distance, of what `features` gives for the estimate and for the target."""
        total = features[0].new_zeros((), dtype=torch.float32)
        for weight, feature, reference in zip(_GROUP_WEIGHTS, features, references, strict=True):
            magnitude = reference.float().abs().mean()
            total = total + weight * F.l1_loss(feature.float(), reference.float()) / magnitude
        return total
