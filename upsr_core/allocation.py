"""Memory that a process keeps for its next call instead of handing it back to the system at once."""

from __future__ import annotations

import ctypes
import platform

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Larger than any feature map of a tile, smaller than a large image: those still go back to the system at once.
_KEPT_BLOCK_BYTES = 256 * 2**20
_KEPT_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 256 MiB, and 2 GiB in all, for the next call; True where it does so.

    By default each block over 32 MiB at most goes back to the system when it is freed, so every layer of a network pays
    for fresh pages: a seventh of the time of a call on a CPU. The setting is the whole process's, so the command line
    makes it, and a program that uses the library may. It does nothing on systems without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Both, since each one alone also switches off glibc's own adjustment of the other.
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
