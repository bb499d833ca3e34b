"""What the networks are trained to make small."""

from __future__ import annotations

import warnings

import torch
from torch import nn


class LPIPSLoss(nn.Module):
    """Perceptual distance LPIPS (CVPR 2018) with the VGG backbone, as in Eq. 9; it has no trained parameters.

    Args:
        pretrained: False leaves the backbone random, for trying code out without its weights.

    Raises:
        ImportError: the ``lpips`` package is missing.
        OSError: the backbone's weights are neither in torch's cache nor can they be downloaded.
    """

    def __init__(self, pretrained: bool = True):
        super().__init__()
        import lpips  # an extra of its own: most runs do without

        with warnings.catch_warnings():
            # lpips asks torchvision for the weights in a way that it calls deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            net = lpips.LPIPS(net="vgg", pnet_rand=not pretrained, verbose=False)
        self.net = net.eval().requires_grad_(False)

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean distance of images (B,3,H,W) in [-1,1]; the estimate is clipped to that range first."""
        with torch.autocast(estimate.device.type, enabled=False):
            return self.net(estimate.float().clamp(-1, 1), target.float()).mean()
