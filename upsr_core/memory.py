"""The memory that is free, and what running out of it looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

# The free memory where it is unknown (no /proc, no accelerator that tells): any machine of today has as much.
ASSUMED_FREE_BYTES = 2 * 2**30
# PyTorch has an exception class for this on some accelerators only.
OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")

_told: ContextVar[Callable[[torch.device], int] | None] = ContextVar("free memory as a host tells it", default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on any device."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def empty_cache(device: torch.device) -> None:
    """Release the memory of ``device`` that PyTorch holds but does not use."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).empty_cache()


def free_bytes(device: torch.device) -> int:
    """Memory to plan with on ``device``: what `free_memory_as` was given says, else `measured_free_bytes`."""
    return (_told.get() or measured_free_bytes)(device)


@contextmanager
def free_memory_as(told: Callable[[torch.device], int]) -> Iterator[None]:
    """Let a host that keeps memory for others say how many bytes of a device are free."""
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)


def measured_free_bytes(device: torch.device) -> int:
    """Memory a new tensor could take on ``device``."""
    if device.type in ("cuda", "xpu"):
        module = getattr(torch, device.type)
        free, _ = module.mem_get_info(device)
        return free + module.memory_reserved(device) - module.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return min(int(fields["MemAvailable"].split()[0]) * 1024, _cgroup_free_bytes())
    return ASSUMED_FREE_BYTES


def _cgroup_free_bytes() -> int:
    """Memory that a container's limit leaves; 2^63 without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except OSError:
        return 2**63
    return 2**63 if limit == "max" else max(0, int(limit) - used)
