"""The measuring child process: ``python -P -m gnomon.devices.worker``.

Reads one :class:`~gnomon.devices.jobs.RoundJob` from standard input and writes one JSON event a
line to the descriptor that was its standard output. Standard output itself is led to standard
error first, so that whatever a runtime prints cannot break the stream. The process ends when its
parent ends.

Events: ``ready``, ``start`` (a model; the parent's time limit begins), ``result``, ``failed``
(an exception in one model), ``done``.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..records import STATISTICS
from .contention import Stopwatch
from .energy import energy_per_run_mj, idle_power_w
from .jobs import ModelJob, Quantiles, RoundJob, Sample
from .process import become_realtime, end_with_parent, offer_to_the_out_of_memory_killer, pin
from .protocol import Protocol
from .runner import Runner, Session, import_class

REFERENCE = -1
"""Index under which the reference model is reported."""
OVERRUN = 10.0
"""``min_runs`` may stretch ``time_cap_s`` by this factor, not more: slow models get fewer runs."""
REFERENCE_SHARE = 0.1
"""The reference is timed for this share of ``time_cap_s`` each time."""
WARMUP_SHARE = 0.1
"""Warm-up lasts at least this share of ``time_cap_s``: ten runs of a tiny model warm nothing."""
WINDOW_RUNS = 5
"""Fewest runs of a window whose median is compared with that of the window before."""
STOP_SHARE = 0.25
"""Timing does not end early before this share of its time."""
BLOCKS = 10
"""Consecutive blocks of runs, whose medians tell the standard error of the whole median."""


def main() -> int:
    """Runs one round; the exit code is 0 when every event was written."""
    events = claim_standard_output()
    job = RoundJob.from_json(sys.stdin.readline())
    end_with_parent()
    offer_to_the_out_of_memory_killer()
    sys.path.extend(path for path in job.import_paths if path not in sys.path)
    pinned, realtime = pin(job.cpus), job.realtime and become_realtime()
    runner: Runner = import_class(job.runner)(job.threads, **job.options)
    events(event="ready", pinned=pinned, realtime=realtime)
    _Round(job, runner, events, pinned, realtime).run()
    events(event="done")
    sys.stderr.flush()
    os._exit(0)  # a runtime that crashes while it is torn down has already given its results


class _Round:
    """Times every model of the job, the reference before, between and after them."""

    def __init__(
        self, job: RoundJob, runner: Runner, events: Callable[..., None], pinned: bool, realtime: bool
    ) -> None:
        self._job, self._runner, self._events = job, runner, events
        self._pinned, self._realtime = pinned, realtime
        self._reference: Session | None = None
        self._meter, self._idle_w = runner.meter(), 0.0

    def run(self) -> None:
        if self._meter is not None:
            self._idle_w = idle_power_w(self._meter)
        before = self._open_reference()
        for index, model in enumerate(self._job.models):
            self._events(event="start", model=index)
            self._runner.reset_peak_memory()
            try:
                sample = self._time(model)
                peak, facts = self._runner.peak_memory_bytes(), self._runner.facts()
            except Exception as error:
                self._events(event="failed", model=index, error=_one_line(error))
                continue
            finally:
                gc.collect()
            after = self._time_reference()
            sample = replace(sample, peak_memory_bytes=peak, facts=facts, reference=_mean(before, after))
            self._events(event="result", model=index, sample=sample.to_dict())
            before = after

    def _time(self, model: ModelJob) -> Sample:
        protocol = self._job.protocol
        session = Session(self._runner, model)
        session.check()
        session.reply()
        n_warmup, steady = warm_up(session, protocol)
        stopwatch = Stopwatch(self._job.cpus)
        totals, parts = time_runs(session, protocol, protocol.time_cap_s, protocol.target_error)
        contention = stopwatch.contention()
        meter, idle_w = self._meter, self._idle_w
        energy_mj = None if meter is None else energy_per_run_mj(session.run, meter, idle_w)
        return Sample(
            quantiles(totals),
            {name: quantiles(part) for name, part in parts.items()},
            n_runs=len(totals),
            n_warmup=1 + n_warmup,
            realtime=self._realtime,
            pinned=self._pinned,
            steady=steady,
            contention=contention,
            energy_mj=energy_mj,
        )

    def _open_reference(self) -> Quantiles | None:
        if self._job.reference is None:
            return None
        self._events(event="start", model=REFERENCE)
        self._reference = Session(self._runner, self._job.reference)
        self._reference.check()
        warm_up(self._reference, self._job.protocol)
        return self._time_reference()

    def _time_reference(self) -> Quantiles | None:
        if self._reference is None:
            return None
        protocol = self._job.protocol
        for _ in range(protocol.warmup_runs):  # the model before left the caches to itself
            self._reference.run()
        return quantiles(time_runs(self._reference, protocol, protocol.time_cap_s * REFERENCE_SHARE)[0])


def warm_up(session: Session, protocol: Protocol) -> tuple[int, bool | None]:
    """Runs that do not count: ``warmup_runs`` and a tenth of the time cap, then for as long as they become faster,
    but never more than the cap.

    Returns:
        How many; and whether they had stopped becoming faster (None if ``protocol.steady_share`` is).
    """
    share = protocol.steady_share
    start = time.perf_counter()
    times: list[float] = []
    next_look = 0
    while True:
        n, spent = len(times), time.perf_counter() - start
        if n >= protocol.warmup_runs and n >= next_look and spent >= protocol.time_cap_s * WARMUP_SHARE:
            if share is None:
                return n, None
            if not still_falling(times, share):
                return n, True
            next_look = n + _window(n)
        if spent > protocol.time_cap_s:
            return n, None if share is None else n >= 2 * WINDOW_RUNS and not still_falling(times, share)
        times.append(session.run()[0])


def still_falling(times_ms: Sequence[float], share: float) -> bool:
    """Whether the median of the last window of runs is lower than that of the one before by more than ``share``.

    A window is a quarter of all runs so far and five at least; fewer than two windows may still be falling.
    """
    size = _window(len(times_ms))
    if len(times_ms) < 2 * size:
        return True
    before, last = np.median(times_ms[-2 * size : -size]), np.median(times_ms[-size:])
    return bool(last < (1.0 - share) * before)


def _window(runs: int) -> int:
    return max(WINDOW_RUNS, runs // 4)


def standard_error(times_ms: Sequence[float]) -> float:
    """Relative standard error of the median of a series ``(runs,)``, infinite for fewer than three runs a block.

    From the medians of ten consecutive blocks, so that a drift within the series counts: single runs are
    not independent of their neighbours.
    """
    if len(times_ms) < 3 * BLOCKS:
        return math.inf
    medians = [float(np.median(block)) for block in np.array_split(np.asarray(times_ms), BLOCKS)]
    return float(np.std(medians, ddof=1) / math.sqrt(BLOCKS) / np.median(times_ms))


def time_runs(
    session: Session, protocol: Protocol, time_cap_s: float, target_error: float | None = None
) -> tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[np.float64]]]:
    """Latencies in ms ``(runs,)`` of the plan, and of each of its graphs by name.

    Args:
        target_error: Ends early at this relative standard error of the median; None to fill the time.
    """
    totals: list[float] = []
    parts: list[dict[str, float]] = []
    next_look = 0
    gc.disable()  # a collection inside a timed run would be charged to the model
    try:
        start = time.perf_counter()
        while True:
            total, part = session.run()
            totals.append(total)
            parts.append(part)
            spent, n = time.perf_counter() - start, len(totals)
            enough = n >= protocol.min_runs or spent >= OVERRUN * time_cap_s
            if n >= protocol.max_runs or (enough and spent >= time_cap_s):
                break
            if target_error is None or n < next_look or not enough or spent < STOP_SHARE * time_cap_s:
                continue
            if standard_error(totals) <= target_error:
                break
            next_look = n + n // 2  # seldom: looking disturbs the caches
    finally:
        gc.enable()
    return np.array(totals), {name: np.array([part[name] for part in parts]) for name in parts[0]}


def quantiles(times_ms: npt.NDArray[np.float64]) -> Quantiles:
    """Minimum, 10 %, 50 % and 90 % quantile of a series ``(runs,)``."""
    p10, median, p90 = np.quantile(times_ms, (0.1, 0.5, 0.9))
    return Quantiles(float(times_ms.min()), float(p10), float(median), float(p90))


def _mean(before: Quantiles | None, after: Quantiles | None) -> Quantiles | None:
    if before is None or after is None:
        return None
    return Quantiles(*(0.5 * (getattr(before, name) + getattr(after, name)) for name in STATISTICS))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# ---- The process ---------------------------------------------------------------------------


def claim_standard_output() -> Callable[..., None]:
    """Keeps the stream for events; everything else that is printed goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.set_inheritable(stream.fileno(), False)
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def write(**event: Any) -> None:
        stream.write(json.dumps(event) + "\n")
        stream.flush()

    return write


if __name__ == "__main__":
    sys.exit(main())
