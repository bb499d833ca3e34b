"""IMAGE and MASK to tensors and back, and what the user is told on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def images(node_module: Callable[[str], ModuleType]) -> ModuleType:
    return node_module("images")


def random_image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_frames_and_back(images: ModuleType, channels: int) -> None:
    batch = random_image(3, 5, 7, channels)
    images.check_image(batch)
    rgb, alpha = images.frame_of(batch, 1)
    assert rgb.shape == (1, 3, 5, 7)
    assert torch.equal(rgb[0, 0], batch[1, ..., 0])
    if channels == 4:
        assert torch.equal(alpha[0, 0], batch[1, ..., 3])
    else:
        assert alpha is None
    back = images.empty_image(3, 3, 5, 7, batch.device)
    for index in range(3):
        images.put_frame(back, index, images.frame_of(batch, index)[0])
    assert torch.equal(back, batch[..., :3].expand(-1, -1, -1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_become_float32(images: ModuleType, dtype: torch.dtype) -> None:
    rgb, _ = images.frame_of(random_image(1, 4, 4, 3).to(dtype), 0)
    assert rgb.dtype == torch.float32


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 4, 2), (0, 4, 4, 3), (1, 0, 4, 3)])
def test_what_is_no_image(images: ModuleType, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="image"):
        images.check_image(torch.zeros(shape))


def test_values_out_of_range_are_clipped_and_told(images: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    batch = random_image(2, 4, 4, 3)
    batch[1, 0, 0] = torch.tensor([-0.5, 0.5, 1.25])
    images.frame_of(batch, 0)
    assert not caplog.text
    rgb, _ = images.frame_of(batch, 1)
    assert rgb[0, :, 0, 0].tolist() == [0, 0.5, 1]
    assert "Image 1 spans -0.500 to 1.250 and was clipped" in caplog.text


def test_nan_names_the_frame(images: ModuleType) -> None:
    batch = random_image(2, 4, 4, 3)
    batch[1, 2, 2, 0] = float("nan")
    with pytest.raises(ValueError, match="image 1 of the batch holds NaN"):
        images.frame_of(batch, 1)


def test_weights_one_for_all_or_one_for_each(images: ModuleType) -> None:
    masks = random_image(3, 8, 12)
    for index in range(3):
        assert torch.equal(images.frame_weight(masks, index, 3, 8, 12)[0, 0], masks[index])
        assert torch.equal(images.frame_weight(masks[:1], index, 3, 8, 12)[0, 0], masks[0])
        assert torch.equal(images.frame_weight(masks[0], index, 3, 8, 12)[0, 0], masks[0])
    with pytest.raises(ValueError, match="3 masks for 2 images"):
        images.frame_weight(masks, 0, 2, 8, 12)


def test_a_weight_of_another_size_is_resized_and_told(images: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 32, 64)
    weight = images.frame_weight(ramp, 0, 1, 16, 32)
    torch.testing.assert_close(weight[0, 0, 8], torch.linspace(1 / 126, 125 / 126, 32), atol=1e-2, rtol=0)
    assert "64x32 and was resized to the output's 32x16" in caplog.text


def test_masks_average_the_channels(images: ModuleType) -> None:
    mask = images.empty_mask(2, 4, 5, torch.device("cpu"))
    frames = [random_image(1, 3, 4, 5), random_image(1, 1, 4, 5)]
    for index, frame in enumerate(frames):
        images.put_frame(mask, index, frame)
    assert torch.equal(mask[0], frames[0][0].mean(0))
    assert torch.equal(mask[1], frames[1][0, 0])


def test_warnings_reach_the_user_once_each(node_module: Callable[[str], ModuleType]) -> None:
    notices = node_module("notices")
    shown: list[str] = []
    library = logging.getLogger("upsr_core.tiling")
    with notices.shown(shown.append):
        library.info("not a warning")
        library.warning("Out of memory with %s.", "large tiles")
        library.warning("Out of memory with %s.", "large tiles")
        notices.logger.warning("Clipped.")
    library.warning("after the run")
    assert shown == ["Out of memory with large tiles.", "Out of memory with large tiles.\nClipped."]
