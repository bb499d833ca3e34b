"""Distance of VGG16 features, from weights that a package brings, so that nothing has to be downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from trainer.losses.terms import PerceptualLoss

WEIGHTS_PACKAGE = "stlpips_pytorch"
_WEIGHTS_FILE = "weights/vST0.0/vgg_shift_tolerant.pth"
# The last convolutions of VGG16's five groups, and the weights of their distances (Real-ESRGAN, ICCV Workshops 2021,
# section 3.3: {0.1, 0.1, 1, 1, 1}).
_GROUP_ENDS = (1, 3, 6, 9, 12)
_GROUP_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)


def find_weights() -> Path:
    """The file with VGG16's weights in the installed package, which is not imported.

    Raises:
        FileNotFoundError: the package or its file is missing.
    """
    spec = find_spec(WEIGHTS_PACKAGE)
    file = Path(spec.origin).parent / _WEIGHTS_FILE if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        raise FileNotFoundError(f'VGG16\'s weights come with the package {WEIGHTS_PACKAGE}; pip install "upsr[train]"')
    return file


class VGGFeatureLoss(PerceptualLoss):
    """L1 distance of the features of VGG16's last convolution in each group, before activation and pooling.

    Each group's distance is divided by the mean magnitude of the target's features, since the groups differ by two
    orders of magnitude; then they are weighted as in Real-ESRGAN. Pooling is by plain maxima: the blurred pooling that
    the weights were tuned with is blind to a hatch of the highest frequencies, which a network would then draw.

    Args:
        weights: state of the published ST-LPIPS network (ECCV 2022) with the VGG16 backbone; None finds it in the
            installed package.

    Raises:
        FileNotFoundError: the weights are not installed.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weights: dict[str, torch.Tensor] | None = None):
        super().__init__()
        if weights is None:
            weights = torch.load(find_weights(), map_location="cpu", weights_only=True)
        # The rest are the linear heads of ST-LPIPS and the filters of its pooling.
        names = [name.removesuffix(".bias") for name in weights if name.startswith("net.") and name.endswith(".bias")]
        self.convolutions = nn.ModuleList()
        for name in names:
            kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
            convolution.load_state_dict({"weight": kernel, "bias": bias})
            self.convolutions.append(convolution)
        self.register_buffer("shift", weights["scaling_layer.shift"])
        self.register_buffer("scale", weights["scaling_layer.scale"])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean distance of images (B,3,H,W) in [-1,1], H and W at least 16; the estimate is not clipped."""
        with torch.no_grad():
            wanted = self._features(target)
        total = estimate.new_zeros(())
        for weight, feature, reference in zip(_GROUP_WEIGHTS, self._features(estimate), wanted, strict=True):
            magnitude = reference.float().abs().mean()
            total = total + weight * F.l1_loss(feature.float(), reference.float()) / magnitude
        return total

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
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
