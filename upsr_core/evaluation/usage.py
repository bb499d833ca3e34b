"""Time and memory of a piece of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def measured(work: Callable[[], T], device: torch.device) -> tuple[T, float, int | None]:
    """Time and memory of some work.

    Args:
        work: the work.
        device: where its memory is counted.

    Returns:
        Its result, the seconds, and the peak of memory in bytes: of the device, or on a CPU of the whole process, which
        Linux alone reports; else None.
    """
    _reset_peak(device)
    start = time.perf_counter()
    result = work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return result, time.perf_counter() - start, _peak_bytes(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not allowed: `_peak_bytes` is that since the start, or nothing
            return


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if device.type != "cpu" or not status.exists():
        return None
    lines = status.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
