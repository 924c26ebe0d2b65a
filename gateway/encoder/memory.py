"""After a scorer is retired: its arrays leave holes in the heap, which the C library gives back only when asked."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Collect what is unreachable and return free heap to the system (glibc; elsewhere the collection alone)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
