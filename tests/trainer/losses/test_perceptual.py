from __future__ import annotations

import pytest
import torch

from trainer.losses.perceptual import LPIPSLoss, STLPIPSLoss


def test_lpips_is_a_distance_with_gradients() -> None:
    lpips = LPIPSLoss(pretrained=False)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 64, 64, generator=generator) * 2 - 1
    estimate = (image + 0.3 * torch.randn(image.shape, generator=generator)).requires_grad_()
    assert lpips(image, image).item() == 0
    distance = lpips(estimate, image)
    assert distance.item() > 0
    distance.backward()
    assert estimate.grad is not None
    assert estimate.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())
    # Values outside [-1,1] count as what an image file would hold.
    assert lpips(torch.full_like(image, 3.0), torch.ones_like(image)).item() == 0


def test_st_lpips_is_a_distance_with_gradients() -> None:
    loss = STLPIPSLoss()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    estimate = (image + 0.3 * torch.randn(image.shape, generator=generator)).requires_grad_()
    assert loss(image, image).item() == 0
    distance = loss(estimate, image)
    assert distance.item() == pytest.approx(sum(loss(estimate[i : i + 1], image[i : i + 1]).item() for i in (0, 1)) / 2)
    distance.backward()
    assert estimate.grad is not None
    assert estimate.grad.abs().sum() > 0
    assert loss(torch.full_like(image, 3.0), torch.ones_like(image)).item() == 0
