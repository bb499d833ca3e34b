from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.images import photos
from trainer.losses.adversarial import Discriminator, adversarial_losses, gather_evidence, magnitudes
from trainer.losses.vgg_features import VGGFeatureLoss


@pytest.fixture(scope="module")
def vgg() -> VGGFeatureLoss:
    return VGGFeatureLoss()


@pytest.fixture
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator()


def evidence(vgg: VGGFeatureLoss, image: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
    return gather_evidence(image, vgg.features(image), magnitudes(target, vgg.features(target)))


def test_each_branch_scores_places(vgg: VGGFeatureLoss, discriminator: Discriminator) -> None:
    target = 2 * photos(2, 64) - 1
    scores = discriminator(evidence(vgg, target, target))
    assert [tuple(score.shape) for score in scores] == [(2, 1, side, side) for side in (32, 32, 16, 8, 4)]


def test_evidence_is_of_unit_magnitude_for_photos_and_shows_weak_details(vgg: VGGFeatureLoss) -> None:
    target = 2 * photos(2, 64) - 1
    pixels, *features = evidence(vgg, target, target)
    for part in (pixels[:, 3:], *features):
        assert part.abs().mean().item() == pytest.approx(1, rel=1e-4)
    blurred = nn.functional.avg_pool2d(target, 5, stride=1, padding=2)
    weak, *_ = evidence(vgg, blurred, target)
    assert torch.equal(weak[:, :3], blurred)
    assert weak[:, 3:].abs().mean() < 0.5


def test_each_loss_has_gradients_for_its_own_network_alone(vgg: VGGFeatureLoss, discriminator: Discriminator) -> None:
    target = 2 * photos(2, 64) - 1
    estimate = nn.Parameter(target.flip(-1))
    weights = list(discriminator.parameters())
    real, fake = evidence(vgg, target, target), evidence(vgg, estimate, target)
    adversarial, own = adversarial_losses(discriminator, real, fake)
    of_estimate = torch.autograd.grad(adversarial, [estimate, *weights], retain_graph=True, allow_unused=True)
    assert of_estimate[0] is not None
    assert of_estimate[0].abs().sum() > 0
    assert all(gradient is None for gradient in of_estimate[1:])
    of_discriminator = torch.autograd.grad(own, [estimate, *weights], allow_unused=True)
    assert of_discriminator[0] is None
    # A branch's last bias has none while no score is beyond the margin: photos and estimates cancel.
    kernels = [gradient for gradient in of_discriminator[1:] if gradient is None or gradient.ndim == 4]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in kernels)


def test_the_hinge_losses(discriminator: Discriminator) -> None:
    class Known(nn.Module):
        def forward(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
            return parts

    real, fake = [torch.tensor([[2.0, 0.5]])], [torch.tensor([[-3.0, 0.0]])]
    adversarial, own = adversarial_losses(Known(), real, fake)
    assert adversarial.item() == 1.5
    assert own.item() == (0 + 0.5) / 2 + (0 + 1) / 2


def test_it_learns_to_tell_a_blurred_photo(vgg: VGGFeatureLoss, discriminator: Discriminator) -> None:
    target = 2 * photos(4, 64) - 1
    blurred = nn.functional.avg_pool2d(target, 3, stride=1, padding=1)
    real, fake = evidence(vgg, target, target), evidence(vgg, blurred, target)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    for _ in range(30):
        _, own = adversarial_losses(discriminator, real, fake)
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    for photo, blur in zip(discriminator(real), discriminator(fake), strict=True):
        assert photo.mean() > blur.mean()
    # And the photo is what the estimate is drawn to.
    towards, _ = adversarial_losses(discriminator, real, real)
    away, _ = adversarial_losses(discriminator, real, fake)
    assert towards < away
