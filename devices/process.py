"""What a measuring process does to itself: pin, ask for real time, die with its parent, count memory.

Every function works on any system and says what it really obtained.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def pin(cpus: Iterable[int]) -> bool:
    """Pins this process to ``cpus``; whether that was obtained (never for an empty list)."""
    cores = tuple(cpus)
    if not cores:
        return False
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, AttributeError):
        return False
    return True


def become_realtime() -> bool:
    """Asks for SCHED_FIFO, the lowest of its priorities; whether that was permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (OSError, AttributeError):
        return False
    return True


def offer_to_the_out_of_memory_killer() -> None:
    """When memory runs out, Linux is to end this process and not the search."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def end_with_parent() -> None:
    """Linux kills this process when its parent dies; elsewhere the closed standard input tells."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 1 << 12):  # not sys.stdin, whose lock would abort an interpreter that ends by itself
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def reset_peak_memory() -> None:
    """Gives freed memory back and restarts Linux's peak counter, so that models do not share it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int | None:
    """Peak resident memory since the reset (where there is no such counter: since the start).

    Linux's ``VmHWM`` rather than ``ru_maxrss``, in which a child inherits its parent's value.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
