"""A pool of training pairs that mixes samples across batches."""

from __future__ import annotations

from typing import Any

import torch


class PairPool:
    """Swaps each incoming batch against random pairs of a pool, so that neighbours in the data order get into
    different batches.

    Until the pool is full, batches pass through unchanged and are stored as well, so early pairs are seen twice.

    Args:
        size: number of pairs held, at least one batch.
        seed: of the pool's own generator.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self._generator = torch.Generator().manual_seed(seed)
        self._hr: torch.Tensor | None = None
        self._lr: torch.Tensor | None = None
        self._filled = 0

    def exchange(self, hr: torch.Tensor, lr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a batch in and take as many pairs out.

        Args:
            hr: (B,3,H,W), no more pairs than the pool holds.
            lr: (B,3,h,w).

        Returns:
            hr and lr of the same shapes.
        """
        count = hr.shape[0]
        if self._hr is None or self._lr is None:
            self._hr = hr.new_empty((self.size, *hr.shape[1:]))
            self._lr = lr.new_empty((self.size, *lr.shape[1:]))
        if self._filled < self.size:
            room = min(count, self.size - self._filled)
            self._hr[self._filled : self._filled + room] = hr[:room]
            self._lr[self._filled : self._filled + room] = lr[:room]
            self._filled += room
            return hr, lr
        slots = torch.randperm(self.size, generator=self._generator)[:count].to(hr.device)
        out = self._hr[slots], self._lr[slots]
        self._hr[slots], self._lr[slots] = hr, lr
        return out

    def state_dict(self) -> dict[str, Any]:
        """Pairs and generator, from which a resumed run gives the same batches."""
        return {
            "size": self.size,
            "filled": self._filled,
            "hr": self._hr,
            "lr": self._lr,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ValueError: it is of a pool of another size.
        """
        if state["size"] != self.size:
            raise ValueError(f"the saved pool holds {state['size']} pairs, this one is set to {self.size}")
        self._filled = state["filled"]
        self._hr = None if state["hr"] is None else state["hr"].clone()
        self._lr = None if state["lr"] is None else state["lr"].clone()
        self._generator.set_state(state["generator"].cpu())
