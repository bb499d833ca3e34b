"""The adversarial term: a discriminator that is trained beside the denoiser, and the losses of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

# Of the second to the fifth group of VGG16, as `VGGFeatureLoss` compares them.
FEATURE_CHANNELS = (128, 256, 512, 512)
WIDTH = 64


class Discriminator(nn.Module):
    """Scores how real each place of an image looks, by its pixels and by VGG16's features of it, each in a branch.

    Features of a frozen network let a discriminator learn within few steps (Projected GANs, NeurIPS 2021). VGG16 pools
    by maxima, so pixels have a branch of their own, with their finest details beside them. Every convolution has
    spectral normalisation (ICLR 2018), which keeps the gradients bounded.
    """

    def __init__(self) -> None:
        super().__init__()
        shallow = WIDTH // 2
        pixels = nn.Sequential(_convolution(6, shallow, 4, stride=2), nn.LeakyReLU(0.2), *_head(shallow, 3))
        features = (nn.Sequential(*_head(channels, 1)) for channels in FEATURE_CHANNELS)
        self.branches = nn.ModuleList([pixels, *features])

    def forward(self, evidence: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Scores (B,1,h,w) of each branch in float32, higher for more real, of what `gather_evidence` gives."""
        return [branch(part).float() for branch, part in zip(self.branches, evidence, strict=True)]


def magnitudes(target: torch.Tensor, references: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Mean magnitudes of what `gather_evidence` scales, of the real images and VGG16's five groups of features."""
    return [part.float().abs().mean() for part in (_details(target), *references[1:])]


def gather_evidence(
    image: torch.Tensor, features: Sequence[torch.Tensor], scales: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """What a discriminator judges by: the pixels (B,6,H,W) with their details, and the second to fifth group.

    Args:
        image: (B,3,H,W) in [-1,1].
        features: VGG16's five groups of it.
        scales: `magnitudes` of the real images, for both: features that are weaker throughout must be seen to be.
    """
    details, *scaled = (part / scale for part, scale in zip((_details(image), *features[1:]), scales, strict=True))
    return [torch.cat([image, details], dim=1), *scaled]


def adversarial_losses(
    discriminator: nn.Module, real: Sequence[torch.Tensor], fake: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The hinge losses (Geometric GAN, 2017), means over places and branches.

    Args:
        discriminator: perhaps wrapped for distributed training, which allows one call for each backward pass.
        real, fake: evidence of photos and of estimates.

    Returns:
        The loss of the network that estimates, whose gradients leave the discriminator as it is, and the
        discriminator's, whose gradients reach nothing else: their sum can be minimised in one step.
    """
    both = [torch.cat([one, other]).detach() for one, other in zip(real, fake, strict=True)]
    halves = [score.chunk(2) for score in discriminator(both)]
    errors = torch.stack([(F.relu(1 - photo) + F.relu(1 + estimate)).mean() for photo, estimate in halves])
    bare = getattr(discriminator, "module", discriminator)
    constants = {name: parameter.detach() for name, parameter in bare.named_parameters()}
    scores = functional_call(bare, constants, (list(fake),))
    return -torch.stack([score.mean() for score in scores]).mean(), errors.mean()


def _details(image: torch.Tensor) -> torch.Tensor:
    return image - F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)


def _head(channels: int, side: int) -> list[nn.Module]:
    return [
        _convolution(channels, WIDTH, side),
        nn.LeakyReLU(0.2),
        _convolution(WIDTH, WIDTH, 3),
        nn.LeakyReLU(0.2),
        _convolution(WIDTH, 1, 1),
    ]


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, side, stride=stride, padding=(side - 1) // 2))
