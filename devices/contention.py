"""Whether a process got its cores: time that it waited for one, and time that a hypervisor took.

A process that wants to run and does not is charged nothing by its own clock, but its latencies grow. Linux
counts that waiting (``schedstat``, in ns) for every thread, and the time in which the hypervisor ran
something else on a core (``steal`` in ``/proc/stat``, in ticks of 10 ms: over a measurement's processes it
averages out).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")


class Stopwatch:
    """Starts when it is made.

    Args:
        cpus: Cores that the process is pinned to; empty for all.
        proc: Where the counters are.
    """

    def __init__(self, cpus: Collection[int] = (), *, proc: Path = PROC) -> None:
        self._cpus, self._proc = frozenset(cpus), proc
        self._waited, self._stolen = self._waited_ns(), self._stolen_ticks()
        self._start = time.perf_counter()

    def contention(self) -> float | None:
        """Share (0 to 1) of the time since the start in which this process was ready but did not run, or its
        cores were taken away; None where the system does not count its waiting."""
        seconds = time.perf_counter() - self._start
        waited = self._waited_ns()
        if not waited or not self._waited or seconds <= 0:
            return None
        # The thread that waited longest: the others wait for it.
        lost_s = max(ns - self._waited.get(thread, 0) for thread, ns in waited.items()) * 1e-9
        stolen = self._stolen_ticks()
        if stolen is not None and self._stolen is not None:
            lost_s += (stolen - self._stolen) / os.sysconf("SC_CLK_TCK")
        return min(max(lost_s / seconds, 0.0), 1.0)

    def _waited_ns(self) -> dict[str, int]:
        """How long each thread waited for a core, by its id; empty where that is not counted."""
        waited: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for task in (self._proc / "self" / "task").iterdir():
                with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
                    waited[task.name] = int((task / "schedstat").read_text().split()[1])
        return waited

    def _stolen_ticks(self) -> float | None:
        """Of the process's cores: mean ticks that a hypervisor took."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = [line.split() for line in (self._proc / "stat").read_text().splitlines()]
            cores = {int(words[0][3:]): int(words[8]) for words in lines if words and words[0][3:].isdigit()}
            taken = [ticks for core, ticks in cores.items() if not self._cpus or core in self._cpus]
            return sum(taken) / len(taken) if taken else None
        return None
