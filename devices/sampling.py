"""From per-process samples to one measurement: statistic, interval, drift, verdict.

**Over processes the smallest value counts.** Whatever else runs on a machine (other processes, other
virtual machines on the same core, throttling) makes a whole process slower for a second or more,
and never faster. Within a process the study's statistic decides, by default the median: single runs
catch rare moments at a higher clock, which a repeat catches or misses, so that the smallest single
run differs more between repeats. ``benchmarks/verify_repeat.py`` measures both choices
(``if_<statistic>_within_3_percent``, ``if_median_over_processes_within_3_percent``).

**The interval** is the bootstrap over processes of that smallest value, in closed form: with k
processes, the smallest of a resample exceeds the j-th smallest value with probability
((k-j)/k)^k. Its upper 95 % point lies ``gap`` above the estimate; since the bootstrap of a
minimum never goes below the data, the same gap is taken below (a repeat may well be faster). The
gap is widened by Student's t over the normal quantile, as bootstrap intervals of few values are too
narrow (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, on narrowness), and by
the square root of two, as a repeat has the same spread. Simulated (normal, exponential and
occasionally disturbed noise; 3 to 8 processes), it held the value that repeats centre on in 82 to
95 % of cases, and a single repeat in 74 to 91 %. It is never narrower than the middle one of the
models that were measured together (relative to their latency). One process gives no interval.

**Drift is reported, not corrected.** Dividing each sample by the reference model around it was tried
on 44 rounds of ten small CNNs, quiet and beside a busy process: with SCHED_FIFO repeats differed more
(90 % quantile .7 against .5 % quiet, 1.9 against 1.4 % busy), as it adds the reference's own noise
and disturbances are shorter than the distance between the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from ..records import STATISTICS, Statistic, Verdict
from .jobs import Quantiles, Sample
from .protocol import Protocol

LEVEL = 0.90
"""Coverage that the interval aims at."""
DRIFT_LIMIT = 0.10
"""Relative drift of the reference above which a wide interval is called throttled, not noisy."""
CONTENTION_LIMIT = 0.05
"""Share of time without a core above which a drift is laid to other processes, not to the machine."""


@dataclass(frozen=True)
class Summary:
    """What the processes of one model say together; latencies in ms."""

    quantiles: Quantiles
    interval: tuple[float, float] | None
    process_values: tuple[float, ...]
    parts: dict[str, float]
    n_runs: int
    n_warmup: int
    peak_memory_bytes: int | None
    drift: float | None
    contention: float | None
    steady: bool | None
    energy_mj: float | None
    verdict: Verdict


def summarise(samples: Sequence[Sample], statistic: Statistic, protocol: Protocol, noise: float = 0.0) -> Summary:
    """Combines the samples ``(k,)`` of one model, one a process.

    Args:
        samples: At least one.
        statistic: The study's statistic.
        protocol: For its target and fewest processes.
        noise: :func:`typical_noise` of the models that were measured together.
    """
    values = process_values(samples, statistic)
    interval, drift = smallest_interval(values, noise), reference_drift(samples)
    contention = mean_contention(samples)
    looked = [s.steady for s in samples if s.steady is not None]
    energies = [s.energy_mj for s in samples if s.energy_mj is not None]
    best = min(range(len(samples)), key=values.__getitem__)
    peaks = [s.peak_memory_bytes for s in samples if s.peak_memory_bytes is not None]
    return Summary(
        quantiles=Quantiles(*(min(float(getattr(s.plan, name)) for s in samples) for name in STATISTICS)),
        interval=interval,
        process_values=values,
        parts={name: float(getattr(part, statistic)) for name, part in samples[best].parts.items()},
        n_runs=sum(s.n_runs for s in samples),
        n_warmup=sum(s.n_warmup for s in samples),
        # Memory that an earlier model left in the same process can only be added.
        peak_memory_bytes=min(peaks) if peaks else None,
        drift=drift,
        contention=contention,
        steady=all(looked) if looked else None,
        # A meter counts the whole package or board: what else ran there can only be added.
        energy_mj=min(energies) if energies else None,
        verdict=verdict(interval, min(values), len(samples), drift, protocol, contention),
    )


def process_values(samples: Sequence[Sample], statistic: Statistic) -> tuple[float, ...]:
    """The study's statistic in ms ``(k,)``, one a process."""
    return tuple(float(getattr(s.plan, statistic)) for s in samples)


def smallest_interval(values: Sequence[float], noise: float = 0.0) -> tuple[float, float] | None:
    """90 % interval in ms of the smallest of ``values`` (one a process); None for fewer than two.

    ``noise`` is its least half-width relative to that value.
    """
    if len(values) < 2:
        return None
    smallest = min(values)
    half = max(_half_width(values), noise * smallest)
    return max(smallest - half, 0.0), smallest + half


def typical_noise(series: Iterable[Sequence[float]]) -> float:
    """Middle relative half-width over models ``(k,)`` each; 0 for fewer than five models with two
    processes. Two of three processes may agree by chance; the models around them tell how closely
    processes agree on this machine."""
    widths = sorted(_half_width(values) / min(values) for values in series if len(values) >= 2)
    return widths[len(widths) // 2] if len(widths) >= 5 else 0.0


def _half_width(values: Sequence[float]) -> float:
    ordered, k = sorted(values), len(values)
    upper = next(j for j in range(1, k + 1) if ((k - j) / k) ** k <= (1 - LEVEL) / 2)
    return (ordered[upper - 1] - ordered[0]) * _widening(k)


@cache
def _widening(k: int) -> float:
    from scipy.special import ndtri, stdtrit

    tail = 1 - (1 - LEVEL) / 2
    return float(math.sqrt(2.0) * stdtrit(k - 1, tail) / ndtri(tail))


def reference_drift(samples: Sequence[Sample]) -> float | None:
    """Largest relative deviation of the reference's median from its middle value over processes."""
    values = sorted(s.reference.median for s in samples if s.reference is not None)
    if not values:
        return None
    middle = values[len(values) // 2]
    return max(abs(value / middle - 1.0) for value in values)


def mean_contention(samples: Sequence[Sample]) -> float | None:
    """Mean share of the timed seconds in which the processes did not get their cores; None if unknown."""
    known = [s.contention for s in samples if s.contention is not None]
    return sum(known) / len(known) if known else None


def verdict(
    interval: tuple[float, float] | None,
    value: float,
    processes: int,
    drift: float | None,
    protocol: Protocol,
    contention: float | None = None,
) -> Verdict:
    """``good``: enough processes agree, whatever the others suffered. Else ``throttled`` where the
    machine itself changed its speed: the reference drifted by more than 10 %, though the processes had
    their cores (or it is unknown whether they had). Else ``noisy``."""
    width = math.inf if interval is None else interval[1] - interval[0]
    if processes >= protocol.min_processes and width <= protocol.target_interval * value:
        return "good"
    drifted = drift is not None and drift > DRIFT_LIMIT
    return "throttled" if drifted and (contention or 0.0) <= CONTENTION_LIMIT else "noisy"
