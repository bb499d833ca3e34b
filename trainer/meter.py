"""What a training run tells about its steps: mean losses, speed and memory."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import psutil
import torch
from accelerate import Accelerator


@dataclass(frozen=True)
class Reading:
    """Of the steps since the last one.

    Attributes:
        means: of all that was added, over all processes.
        seconds_per_step: wall-clock time.
        data_share: part of it, in [0,1], that this process waited for data.
        memory: most bytes in use: on a GPU of this process's tensors, elsewhere of the process, at this moment.
    """

    means: dict[str, float]
    seconds_per_step: float
    data_share: float
    memory: int


class Meter:
    """Means of losses and times since it was last read; tensors stay on their device until then."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self._steps, self._waited, self._since = 0, 0.0, time.monotonic()

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Scalars on the training device, the same names on every process."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.float()
            self._counts[name] += 1

    def waited(self, seconds: float) -> None:
        """Time that went by until a batch was there."""
        self._waited += seconds

    def stepped(self) -> None:
        """An optimiser step is done."""
        self._steps += 1

    def read(self, accelerator: Accelerator) -> Reading:
        """Everything since the last reading; every process must call it."""
        # One tensor, so that processes meet, and the host waits for its device, only once.
        means = torch.stack([total / self._counts[name] for name, total in self._sums.items()])
        means = accelerator.reduce(means, "mean")
        values = dict(zip(self._sums, means.tolist(), strict=True))
        seconds = time.monotonic() - self._since
        reading = Reading(values, seconds / self._steps, self._waited / seconds, _memory(accelerator.device))
        self._reset()
        return reading


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
