"""Memory that a training frees and needs again at once."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, instead of giving it back to the system.

    The maps of a step are freed and wanted again, and otherwise the system zeroes them page by page
    each time: a tenth of a training step of lite_scenes. For the rest of the process; glibc alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 25)  # its largest
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
