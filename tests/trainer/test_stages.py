from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.tiny import ONE_LAYER_ATD
from trainer.stages import noisy_input
from upsr_core import ATDModel, UNWScheduler
from upsr_core.published.conversion import build_published, load_published

DATA = Path(__file__).parents[1] / "data"


def test_noisy_input_and_loss_are_the_published_implementations() -> None:
    with np.load(DATA / "golden.npz") as file:
        keys = [key for key in file.files if key.startswith(("train.", "weights."))]
        golden = {key: torch.from_numpy(file[key]) for key in keys}
    unet, sr_net, scheduler = build_published(json.loads((DATA / "golden_config.json").read_text()))
    for network, name in ((unet, "denoiser"), (sr_net, "sr_net")):
        prefix = f"weights.{name}."
        weights = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
        load_published(network, {key: w.float() for key, w in weights.items()}, name)
    hr, t = golden["train.gt"].float(), golden["train.t"]
    lr = (golden["train.lr"].float() + 1) / 2
    sample, condition = noisy_input(sr_net, scheduler, lr, hr, golden["train.noise"].float(), t, sr_condition=True)
    squared_error = (unet(sample, t, condition).sample - hr).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(squared_error.detach(), golden["train.mse"].float(), atol=1e-5, rtol=1e-5)


def test_the_denoiser_trains_without_the_sr_condition_too() -> None:
    sr_net = ATDModel(**ONE_LAYER_ATD)
    generator = torch.Generator().manual_seed(0)
    lr, hr = (torch.rand(2, 3, size, size, generator=generator) for size in (8, 32))
    noise, t = torch.zeros(2, 3, 32, 32), torch.tensor([0, 4])
    _, condition = noisy_input(sr_net, UNWScheduler(), lr, hr, noise, t, sr_condition=False)
    _, both = noisy_input(sr_net, UNWScheduler(), lr, hr, noise, t, sr_condition=True)
    assert condition.shape == (2, 48, 8, 8)
    # Unshuffled, channel c of the image is channels 16 c to 16 c + 15: G comes first, then Y.
    assert torch.equal(both[:, 48:], condition)
