from __future__ import annotations

import sys
from types import ModuleType
from typing import Literal

import pytest
import torch

from tests.images import photos
from upsr_core.evaluation.st_lpips import STLPIPS

NETS = ("vgg", "alex")


@pytest.fixture(scope="module", params=NETS)
def distance(request: pytest.FixtureRequest) -> STLPIPS:
    return STLPIPS(request.param)


def noisy(images: torch.Tensor, sigma: float) -> torch.Tensor:
    return images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("net", NETS)
def test_values_are_those_of_the_published_module(net: Literal["vgg", "alex"], monkeypatch: pytest.MonkeyPatch) -> None:
    # It imports two packages that it does not declare and does not need.
    for missing, name in (("IPython", "embed"), ("torchsummary", "summary")):
        module = ModuleType(missing)
        setattr(module, name, None)
        monkeypatch.setitem(sys.modules, missing, module)
    published = pytest.importorskip("stlpips_pytorch.stlpips")
    theirs = published.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    for height, width in ((64, 64), (33, 50)):
        images = 2 * photos(3, 64)[:, :, :height, :width] - 1
        others = noisy(images, 0.2).roll(1, 0)
        with torch.no_grad():
            expected = theirs(images, others).flatten()
        assert STLPIPS(net)(images, others) == pytest.approx(expected, rel=1e-5)


def test_it_is_a_distance(distance: STLPIPS) -> None:
    images = 2 * photos(2, 48) - 1
    assert distance(images, images).tolist() == [0, 0]
    slight, strong = (distance(images, noisy(images, sigma)) for sigma in (0.05, 0.3))
    assert (slight > 0).all()
    assert (2 * slight < strong).all()
    assert distance(noisy(images, 0.3), images) == pytest.approx(strong, rel=1e-5)


def test_a_flat_image_has_finite_gradients(distance: STLPIPS) -> None:
    # Features of zero have a length without a derivative.
    image = torch.full((1, 3, 40, 40), -1.0, requires_grad=True)
    distance(image, 2 * photos(1, 40) - 1).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_small_images_and_unequal_shapes_are_refused(distance: STLPIPS) -> None:
    assert distance(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)).shape == (1,)
    for first, second in (((1, 3, 31, 64), (1, 3, 31, 64)), ((1, 3, 64, 64), (2, 3, 64, 64))):
        with pytest.raises(ValueError, match="at least 32"):
            distance(torch.zeros(first), torch.zeros(second))


def test_missing_weights_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upsr_core.evaluation.st_lpips.WEIGHTS_PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"run: pip install"):
        STLPIPS()
