"""Figures of the training steps: mean losses, speed, memory, and where the time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from accelerate import Accelerator


@dataclass(frozen=True)
class Reading:
    """Figures of the steps since the last reading.

    Attributes:
        means: of all that was added, over all processes.
        seconds_per_step: wall-clock time.
        shares: of that time, in [0,1], by part of the step. On a device that computes asynchronously only the host's
            time is counted; ``data`` is complete even then, because the host waits for it.
        memory: most bytes in use: on a GPU of this process's tensors, elsewhere of the process, at this moment.
    """

    means: dict[str, float]
    seconds_per_step: float
    shares: dict[str, float]
    memory: int


class Meter:
    """Means of losses and times since it was last read; tensors stay on their device until then.

    Args:
        wait_for: device that is waited for after each part of a step, so that its work counts there; slower.
    """

    def __init__(self, wait_for: torch.device | None = None) -> None:
        self.wait_for = wait_for
        self.reset()

    def reset(self) -> None:
        """Forget everything since the last reading."""
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0
        self._steps, self._since = 0, time.perf_counter()

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Scalars on the training device, the same names on every process."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.float()
            self._counts[name] += 1

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a part of a step; a part inside another one counts for itself alone."""
        outer, self._inner = self._inner, 0.0
        start = time.perf_counter()
        yield
        if self.wait_for is not None and self.wait_for.type != "cpu":
            torch.accelerator.synchronize(self.wait_for)
        seconds = time.perf_counter() - start
        self._seconds[name] += seconds - self._inner
        self._inner = outer + seconds

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Leave out the time of what is done between the steps."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def stepped(self) -> None:
        """An optimiser step is done."""
        self._steps += 1

    def read(self, accelerator: Accelerator) -> Reading:
        """Everything since the last reading; every process must call it."""
        # One tensor, so that processes meet, and the host waits for its device, only once.
        means = torch.stack([total / self._counts[name] for name, total in self._sums.items()])
        means = accelerator.reduce(means, "mean")
        values = dict(zip(self._sums, means.tolist(), strict=True))
        seconds = time.perf_counter() - self._since
        shares = {name: part / seconds for name, part in self._seconds.items()}
        reading = Reading(values, seconds / self._steps, shares, _memory(accelerator.device))
        self.reset()
        return reading


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
