"""Exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainer.sharding import load_whole, whole


class EMA:
    """Averages that follow the weights of the trained network, sharded as those are.

    The decay at update n is min(decay, (1 + n) / (10 + n)), which forgets the initial weights first and is then
    constant.

    Args:
        model: the network to follow, on its device and sharded already, but not wrapped otherwise.
        decay: share that is kept at each update, in [0,1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model`` after an optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, weight in zip(self.weights.values(), model.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)

    @torch.no_grad()
    def copy_to(self, network: nn.Module | None) -> None:
        """Fill a whole network with the averages.

        Where weights are sharded every process must call it, with None where no network is wanted.
        """
        parameters = {} if network is None else dict(network.named_parameters())
        for name, average in self.weights.items():
            value = whole(average)
            if network is not None:
                parameters[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The whole averages, on the CPU, and the number of updates; every process must call it."""
        weights = {name: whole(average).cpu() for name, average in self.weights.items()}
        return {"weights": weights, "updates": self.updates}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, of however many processes."""
        for name, average in self.weights.items():
            load_whole(average, state["weights"][name])
        self.updates = state["updates"]
