"""Memory that a step frees is kept for the next one, instead of being handed back to the kernel and fetched again.

glibc gives every large block that is freed back at once and asks for it anew, and the kernel then clears it page by page. A
training step on the CPU allocates and frees its activations, hundreds of megabytes, every time: of a ViT-S/16 step a fifth goes
there (docs/speed.md). Where the C library is another one, or the environment decides already, nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["keep_freed_memory"]

# <malloc.h>: blocks from M_MMAP_THRESHOLD bytes on are mapped one by one; above M_TRIM_THRESHOLD free bytes at its end the heap
# is cut back, -1 being never; each time it grows, it grows by M_TOP_PAD bytes more.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST, _NEVER, _STRIDE = 1 << 30, -1, 64 << 20
_DECIDED = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for the rest of the process.

    Peak memory stays what it was; between peaks the process no longer shrinks.

    Returns:
        Whether it was told: False with another C library, or where one of the environment's own settings for it is given.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _DECIDED):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _STRIDE))
    told = [mallopt(option, value) for option, value in settings]
    return all(told)
