"""Work on large populations in cache-sized chunks, on as many threads as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

CHUNK = 4096
MIN_PARALLEL = 8 * CHUNK
MAX_THREADS = 8


def map_chunks(work: Callable[[slice], None], n: int) -> None:
    """Calls ``work`` for consecutive slices of ``range(n)``.

    ``work`` writes its results into arrays of its own; slices do not overlap. Where there is
    enough to do, slices run on threads: numpy releases the interpreter's lock. Slices are the same
    whatever the number of threads, so results are, too.
    """
    slices = [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    if n < MIN_PARALLEL or threads() == 1:
        for rows in slices:
            work(rows)
        return
    for _ in _pool(os.getpid()).map(work, slices):
        pass


def threads() -> int:
    """Cores that this process may use, at most ``MAX_THREADS``."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MAX_THREADS)


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads(), thread_name_prefix="gnomon")
