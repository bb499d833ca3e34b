from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.ema import EMA


def test_ema_forgets_the_start_then_has_a_constant_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(100.0)
    ema = EMA(network, decay=0.5)
    network.weight.data.fill_(0.0)
    values = []
    for _ in range(12):
        ema.update(network)
        values.append(ema.weights["weight"].item())
    assert values[0] == pytest.approx(100 * 2 / 11)
    # (1 + n) / (10 + n) reaches 0.5 at n = 8.
    assert values[9] / values[8] == pytest.approx(0.5)
    assert values[6] / values[5] == pytest.approx(8 / 17)
    assert not ema.weights["weight"].requires_grad
    assert network.weight.requires_grad

    other = EMA(network, decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 12
    assert torch.equal(other.weights["weight"], ema.weights["weight"])
    copy = nn.Linear(1, 1, bias=False)
    ema.copy_to(None)
    ema.copy_to(copy)
    assert torch.equal(copy.weight, ema.weights["weight"])
