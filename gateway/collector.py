"""Garbage collection in a server: a full one walks every object there is and holds the interpreter meanwhile.

With the gateway and its encoder loaded that is some 150 ms in which no request moves. What start-up made lives as long
as the process, so it is kept out of collections; what comes later must go without one, that is, be free of cycles.
"""

from __future__ import annotations

import ctypes
import gc

THRESHOLDS = (2_000, 10, 5)
"""Objects more than there were before the youngest are collected (some 2 ms), and how often the older ones are with
them. What a client that leaves early leaves behind may hold a body, so the older ones must not wait too long."""


def spare_the_collector() -> None:
    """Keep what start-up made out of garbage collections, and collect less often: a tenth of a request's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def keep_for_good() -> None:
    """Keep what is there now out of garbage collections. At once, unlike a collection; for after a library is loaded.

    Objects kept so still go when their last reference does.
    """
    gc.freeze()


def give_back_memory() -> None:
    """Return free heap to the system (glibc; elsewhere nothing): arrays of what is retired leave holes there."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
