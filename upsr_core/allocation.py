"""Memory that a process keeps for its next call instead of handing it back to the system at once."""

from __future__ import annotations

import ctypes
import platform

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Larger than most feature maps of a tile, smaller than a large image: those still go back to the system at once. For
# 512x512 LR in tiles of 256, two threads, the peak was 2.3 GiB in place of 2.0, and the time 38 s in place of 50;
# keeping blocks of 256 MiB, and 2 GiB in all, was no faster, with a peak of 2.5.
_KEPT_BLOCK_BYTES = 64 * 2**20
_KEPT_BYTES = 512 * 2**20


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 64 MiB, and 512 MiB in all, for the next call; True where it does so.

    By default blocks of over 32 MiB, and free memory of over 64 MiB, go back to the system at once, so the layers of a
    network pay for fresh pages again and again: a quarter of the time of tiles of 256 on a CPU. The setting is the
    whole process's, so the command line makes it, and a program that uses the library may. It does nothing on systems
    without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Both, since each one alone also switches off glibc's own adjustment of the other.
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))
