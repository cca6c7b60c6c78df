"""Warm-up until latencies no longer fall, timing until the median is known, and time without a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest

from gnomon.devices import Protocol
from gnomon.devices.contention import Stopwatch
from gnomon.devices.jobs import Quantiles, Sample
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.sampling import CONTENTION_LIMIT, mean_contention, summarise
from gnomon.devices.worker import standard_error, still_falling, time_runs, warm_up
from gnomon.errors import ConfigError
from gnomon.records import Measurement

PROTOCOL = Protocol(warmup_runs=10, min_runs=30, max_runs=1000, time_cap_s=0.15)


class Scripted:
    """A session whose runs take what a script says, on a clock of its own."""

    def __init__(self, times_ms: Iterator[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self._times, self.now = times_ms, 0.0
        monkeypatch.setattr("gnomon.devices.worker.time.perf_counter", lambda: self.now)

    def run(self):
        ms = next(self._times)
        self.now += ms * 1e-3
        return ms, {"main": ms}


def falling(first: float, last: float, runs: int) -> Iterator[float]:
    yield from np.linspace(first, last, runs)
    yield from repeat(last)


# ---- Warm-up ---------------------------------------------------------------------------------


def test_a_steady_model_is_not_warmed_up_longer(monkeypatch):
    fixed = warm_up(Scripted(repeat(1.0), monkeypatch), replace(PROTOCOL, steady_share=None))
    steady = warm_up(Scripted(repeat(1.0), monkeypatch), PROTOCOL)
    assert (fixed, steady) == ((15, None), (15, True))


def test_timing_waits_until_latencies_no_longer_fall(monkeypatch):
    fixed, _ = warm_up(Scripted(falling(4.0, 1.0, 40), monkeypatch), replace(PROTOCOL, steady_share=None))
    runs, steady = warm_up(Scripted(falling(4.0, 1.0, 40), monkeypatch), PROTOCOL)
    assert fixed == 10
    assert steady
    assert runs >= 40


def test_waiting_is_bounded_and_said(monkeypatch):
    session = Scripted((0.97**i for i in range(10_000)), monkeypatch)
    endless = replace(PROTOCOL, time_cap_s=0.03)
    assert warm_up(session, endless)[1] is False
    assert session.now <= 0.031 + 1e-3


def test_rising_latencies_are_not_waited_for(monkeypatch):
    assert warm_up(Scripted((1.1**i for i in range(100)), monkeypatch), PROTOCOL) == (10, True)


def test_windows_are_compared_by_their_medians():
    assert still_falling([1.0] * 5, 0.02)  # one window says nothing
    assert not still_falling([9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0.02)
    assert still_falling([1.0] * 5 + [0.97] * 5, 0.02)
    assert not still_falling([1.0] * 5 + [0.99] * 5, 0.02)


# ---- Stopping early --------------------------------------------------------------------------


def test_the_error_is_that_of_the_median():
    rng = np.random.default_rng(0)
    medians, errors = [], []
    for _ in range(400):
        times = rng.lognormal(sigma=0.1, size=200)
        medians.append(np.median(times))
        errors.append(standard_error(times))
    assert np.mean(errors) == pytest.approx(np.std(medians), rel=0.15)


def test_drift_within_a_process_is_error():
    rng = np.random.default_rng(0)
    still = rng.normal(1.0, 0.01, 200)
    assert standard_error(still + np.linspace(0.0, 0.2, 200)) > 5 * standard_error(still)
    assert standard_error(still[:29]) == np.inf


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 30, 50), (0.01, 38, 120), (0.3, 145, 155)])
def test_timing_ends_when_the_median_is_known(noise, least, most, monkeypatch):
    rng = np.random.default_rng(0)
    session = Scripted((max(0.1, rng.normal(1.0, noise)) for _ in range(10_000)), monkeypatch)
    totals, _ = time_runs(session, PROTOCOL, PROTOCOL.time_cap_s, target_error=0.002)
    assert least <= len(totals) <= most


def test_without_a_target_the_time_is_filled(monkeypatch):
    totals, _ = time_runs(Scripted(repeat(1.0), monkeypatch), PROTOCOL, PROTOCOL.time_cap_s)
    assert len(totals) == pytest.approx(150, abs=1)


@pytest.mark.parametrize("name", ["steady_share", "target_error"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.0])
def test_shares_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"protocol.{name}"):
        Protocol(**{name: value})


# ---- Time without a core ---------------------------------------------------------------------


def test_a_process_that_shares_its_core_knows():
    """Two busy processes on one core: each waits about half of the time."""
    if not os.path.exists("/proc/self/schedstat"):
        pytest.skip("this system does not count waiting")
    allowed = os.sched_getaffinity(0)
    core = min(allowed)
    other = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"])
    try:
        os.sched_setaffinity(0, [core])
        time.sleep(0.3)
        stopwatch, start = Stopwatch([core]), time.perf_counter()
        while time.perf_counter() - start < 0.5:
            pass
        assert stopwatch.contention() > 0.2
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, allowed)


def write_counters(proc, waited: dict[str, int], stolen: tuple[int, int]) -> None:
    for thread, ns in waited.items():
        (proc / "self" / "task" / thread).mkdir(parents=True, exist_ok=True)
        (proc / "self" / "task" / thread / "schedstat").write_text(f"5000 {ns} 3\n")
    cores = "".join(f"cpu{core} 1 0 1 9 0 0 0 {ticks} 0 0\n" for core, ticks in enumerate(stolen))
    proc.joinpath("stat").write_text(f"cpu 2 0 2 18 0 0 0 {sum(stolen)} 0 0\n{cores}intr 5\n")


@pytest.mark.parametrize(
    ("cpus", "share"), [((0,), 0.3), ((1,), 0.5), ((), 0.4)], ids=["quiet core", "stolen from", "all cores"]
)
def test_waiting_and_stolen_time_add_up(cpus, share, tmp_path, monkeypatch):
    """One second: the slower thread waits 0.3 s, core 1 is away for 0.2 s."""
    now = iter([10.0, 11.0])
    monkeypatch.setattr("gnomon.devices.contention.time.perf_counter", lambda: next(now))
    monkeypatch.setattr("gnomon.devices.contention.os.sysconf", lambda name: 100)
    write_counters(tmp_path, {"1": 10_000_000_000, "2": 0}, (5, 5))
    stopwatch = Stopwatch(cpus, proc=tmp_path)
    write_counters(tmp_path, {"1": 10_100_000_000, "2": 300_000_000}, (5, 25))
    assert stopwatch.contention() == pytest.approx(share)


def test_unknown_is_none(tmp_path):
    assert Stopwatch(proc=tmp_path).contention() is None


def sample(ms: float, reference: float, contention: float | None, steady: bool | None = True) -> Sample:
    series = Quantiles(*[ms] * 4)
    around = Quantiles(*[reference] * 4)
    return Sample(series, {}, 10, 2, reference=around, contention=contention, steady=steady)


@pytest.mark.parametrize(
    ("contention", "verdict"),
    [(None, "throttled"), (0.0, "throttled"), (CONTENTION_LIMIT * 2, "noisy")],
    ids=["unknown", "had its core", "waited for its core"],
)
def test_a_drift_of_a_process_that_waited_is_no_throttling(contention, verdict):
    samples = [sample(ms, ms, contention) for ms in (1.0, 1.2, 1.4)]
    assert summarise(samples, "median", PROTOCOL).verdict == verdict


def test_what_is_kept_over_processes():
    summary = summarise([sample(1.0, 1.0, 0.1), sample(1.0, 1.0, 0.3, steady=False)], "median", PROTOCOL)
    assert summary.contention == pytest.approx(0.2)
    assert summary.steady is False
    unknown = summarise([sample(1.0, 1.0, None, steady=None)], "median", PROTOCOL)
    assert (unknown.contention, unknown.steady, unknown.energy_mj) == (None, None, None)
    assert mean_contention([sample(1.0, 1.0, None), sample(1.0, 1.0, 0.5)]) == 0.5


def test_a_measurement_says_both(onnx_models, quick):
    result = next(iter(OnnxRuntimeDevice().measure(onnx_models[:1], quick)))
    assert result.steady in (True, False)
    assert result.contention is None or 0.0 <= result.contention <= 1.0
    assert Measurement.from_json(result.to_json()) == result


# ---- Earlier versions ------------------------------------------------------------------------


def test_measurements_of_version_1_are_read(onnx_models, quick):
    result = next(iter(OnnxRuntimeDevice().measure(onnx_models[:1], quick)))
    old = result.to_dict()
    for name in ("contention", "steady"):
        del old[name]
    read = Measurement.from_dict({**old, "schema": "gnomon.measurement/1"})
    assert read == replace(result, contention=None, steady=None)
    assert read.to_dict()["schema"] == "gnomon.measurement/2"


def test_a_protocol_of_version_1_measures_as_it_did():
    """Same identity, so that what was measured under it is still found."""
    fields = {"processes": 5, "min_processes": 3, "warmup_runs": 10, "min_runs": 20, "max_runs": 1000,
              "time_cap_s": 0.1, "target_interval": 0.05, "timeout_s": 60.0, "interleave": True, "pin": True,
              "realtime": True}  # fmt: skip
    old = Protocol.from_dict({"schema": "gnomon.protocol/1", **fields})
    assert (old.steady_share, old.target_error) == (None, None)
    assert old.id == "e82dd90aea7d1d79"
    assert Protocol(**fields).id != old.id
    assert Protocol.from_json(old.to_json()) == old
