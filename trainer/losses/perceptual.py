"""Perceptual distance: for training with the VGG backbone, for reporting with AlexNet, as the field does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch
from torch import nn

from upsr_core.evaluation.st_lpips import MIN_SIZE, STLPIPS


class PerceptualLoss(nn.Module):
    """Distance of images (B,3,H,W) in [-1,1] without trained parameters: ``loss(estimate, target)`` is a scalar."""

    min_size = 16
    """Smallest H and W."""


class LPIPSLoss(PerceptualLoss):
    """Perceptual distance LPIPS (CVPR 2018), with the VGG backbone that of Eq. 9; it has no trained parameters.

    Args:
        pretrained: False leaves the backbone random, for trying code out without its weights.
        backbone: ``vgg`` or ``alex``.

    Raises:
        ImportError: the ``lpips`` package is missing.
        OSError: the backbone's weights are neither in torch's cache nor can they be downloaded.
    """

    def __init__(self, pretrained: bool = True, backbone: Literal["vgg", "alex"] = "vgg"):
        super().__init__()
        import lpips  # an extra of its own: most runs do without

        with warnings.catch_warnings():
            # lpips asks torchvision for the weights in a way that it calls deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            net = lpips.LPIPS(net=backbone, pnet_rand=not pretrained, verbose=False)
        self.net = net.eval().requires_grad_(False)

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean distance of images (B,3,H,W) in [-1,1]; the estimate is clipped to that range first."""
        with torch.autocast(estimate.device.type, enabled=False):
            return self.net(estimate.float().clamp(-1, 1), target.float()).mean()


class STLPIPSLoss(PerceptualLoss):
    """Perceptual distance ST-LPIPS (ECCV 2022) with the VGG backbone, see `STLPIPS`; it needs no download.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
    """

    min_size = MIN_SIZE

    def __init__(self) -> None:
        super().__init__()
        self.net = STLPIPS("vgg").to(memory_format=torch.channels_last)

    def forward(self, estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean distance of images (B,3,H,W) in [-1,1], sides at least 32; the estimate is clipped to it first."""
        return self.net(estimate.clamp(-1, 1), target).mean()


def reporting_lpips() -> tuple[LPIPSLoss | None, str]:
    """LPIPS as papers report it, with the AlexNet backbone, if nothing has to be downloaded for it.

    Returns:
        It, or None and what to do to have it.
    """
    try:
        from torchvision.models import AlexNet_Weights
    except ImportError as error:
        return None, f'torchvision is missing ({error}); pip install "upsr[train]"'
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(AlexNet_Weights.IMAGENET1K_V1.url).path).name)
    if not file.is_file():
        return None, f"{file} is missing; put it there from {AlexNet_Weights.IMAGENET1K_V1.url}"
    try:
        return LPIPSLoss(backbone="alex"), ""
    except ImportError as error:
        return None, f'the lpips package is missing ({error}); pip install "upsr[train]"'
