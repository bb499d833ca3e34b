from __future__ import annotations

import pytest
import torch

from tests.images import photos
from trainer.losses.vgg_features import VGGFeatureLoss
from upsr_core.evaluation.st_lpips import load_weights

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@pytest.fixture(scope="module")
def loss() -> VGGFeatureLoss:
    return VGGFeatureLoss()


def test_equal_images_have_no_distance_and_worse_ones_more(loss: VGGFeatureLoss) -> None:
    target = 2 * photos(1, 64) - 1
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    distances = [loss(target + sigma * noise, target).item() for sigma in (0, 0.05, 0.2)]
    assert distances[0] == 0
    assert 0 < 2 * distances[1] < distances[2]


def test_a_hatch_of_the_highest_frequency_is_seen(loss: VGGFeatureLoss) -> None:
    target = torch.zeros(1, 3, 64, 64)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    hatch = 0.1 * (1 - 2 * ((rows + columns) % 2)).float().expand(1, 3, -1, -1)
    gradient = 0.1 * torch.linspace(-1, 1, 64).expand(1, 3, 64, -1)
    assert loss(target + hatch, target) > 2 * loss(target + gradient, target)


def test_only_the_estimate_gets_gradients(loss: VGGFeatureLoss) -> None:
    estimate = torch.zeros(1, 3, 32, 32, requires_grad=True)
    loss(estimate, 2 * photos(1, 32) - 1).backward()
    assert estimate.grad is not None
    assert estimate.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_autocast_computes_in_half_precision(loss: VGGFeatureLoss) -> None:
    target = 2 * photos(1, 64) - 1
    estimate = target.flip(-1)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(estimate, target)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss(estimate, target).item(), rel=0.02)
    assert half.item() != loss(estimate, target).item()


def test_the_backbone_is_vgg16(loss: VGGFeatureLoss) -> None:
    weights = load_weights("vgg")
    convolutions = [module for module in loss.modules() if isinstance(module, torch.nn.Conv2d)]
    assert tuple(convolution.out_channels for convolution in convolutions) == WIDTHS
    assert torch.equal(convolutions[-1].weight, weights["net.slice5.32.weight"])


def test_missing_weights_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upsr_core.evaluation.st_lpips.WEIGHTS_PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"pip install"):
        VGGFeatureLoss()
