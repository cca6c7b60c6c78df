"""Statistics over processes: the smallest counts, and its interval is honest."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.devices import Protocol
from gnomon.devices.jobs import Quantiles, Sample
from gnomon.devices.sampling import DRIFT_LIMIT, reference_drift, smallest_interval, summarise, typical_noise


def sample(ms: float, reference: float | None = 1.0, peak: int | None = 100) -> Sample:
    plan = Quantiles(0.9 * ms, 0.95 * ms, ms, 1.5 * ms)
    around = None if reference is None else Quantiles(*[reference] * 4)
    return Sample(plan, {"main": plan}, n_runs=10, n_warmup=2, peak_memory_bytes=peak, reference=around)


PROTOCOL = Protocol(min_processes=3, target_interval=0.03)


def test_the_least_disturbed_process_counts():
    summary = summarise([sample(1.5, peak=300), sample(1.0, peak=200), sample(1.001)], "median", PROTOCOL)
    assert summary.quantiles == Quantiles(0.9, 0.95, 1.0, 1.5)
    assert summary.process_values == (1.5, 1.0, 1.001)
    assert summary.parts == {"main": 1.0}
    assert (summary.n_runs, summary.n_warmup, summary.peak_memory_bytes) == (30, 6, 100)
    assert summary.verdict == "good"


@pytest.mark.parametrize("statistic", ["minimum", "p10", "median", "p90"])
def test_interval_and_process_values_are_of_the_studys_statistic(statistic):
    samples = [sample(ms) for ms in (1.0, 1.01, 1.3)]
    summary = summarise(samples, statistic, PROTOCOL)
    assert summary.process_values == tuple(getattr(s.plan, statistic) for s in samples)
    low, high = summary.interval
    assert low < getattr(summary.quantiles, statistic) < high


def test_the_closed_form_is_the_bootstrap():
    """Resampling the processes gives the same upper point, before the interval is widened."""
    from scipy.stats import norm, t

    rng = np.random.default_rng(0)
    for k in range(2, 12):
        values = rng.lognormal(size=k)
        resampled = values[rng.integers(0, k, (20_000, k))].min(axis=1)
        upper = np.quantile(resampled, 0.95, method="inverted_cdf")
        widening = np.sqrt(2) * t.ppf(0.95, k - 1) / norm.ppf(0.95)
        low, high = smallest_interval(values)
        assert high == pytest.approx(values.min() + widening * (upper - values.min()))
        assert low == pytest.approx(max(values.min() - widening * (upper - values.min()), 0.0))


@pytest.mark.parametrize("k", [3, 5, 8])
@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(lambda rng, k: rng.normal(0, 0.005, k), id="normal"),
        pytest.param(lambda rng, k: rng.exponential(0.005, k), id="exponential"),
        pytest.param(
            lambda rng, k: rng.normal(0, 0.003, k) + 0.5 * (rng.random(k) < 0.3), id="disturbed in 3 of 10 processes"
        ),
    ],
)
def test_coverage_of_the_value_that_repeats_give(noise, k):
    """The interval aims at 90 % for the median over repeats of the whole measurement."""
    rng = np.random.default_rng(1)
    truth = np.median([(1 + noise(rng, k)).min() for _ in range(4000)])
    hits = 0
    for _ in range(1000):
        low, high = smallest_interval(1 + noise(rng, k))
        hits += low <= truth <= high
    assert 0.80 <= hits / 1000 <= 0.99


def test_one_process_has_no_interval_and_no_good_verdict():
    assert smallest_interval([1.0]) is None
    protocol = Protocol(processes=1, min_processes=1)
    assert summarise([sample(1.0)], "median", protocol).verdict == "noisy"


def test_too_few_processes_are_not_good():
    assert summarise([sample(1.0), sample(1.0)], "median", PROTOCOL).verdict == "noisy"
    assert summarise([sample(1.0)] * 3, "median", PROTOCOL).verdict == "good"


def test_a_wide_interval_is_noisy_and_with_drift_throttled():
    values = (1.0, 1.2, 1.4)
    steady = [sample(ms) for ms in values]
    assert summarise(steady, "median", PROTOCOL).verdict == "noisy"
    drifting = [sample(ms, reference=ms) for ms in values]
    summary = summarise(drifting, "median", PROTOCOL)
    assert summary.drift > DRIFT_LIMIT
    assert summary.verdict == "throttled"
    slight = [sample(ms, reference=1 + 0.1 * (ms - 1)) for ms in values]
    assert summarise(slight, "median", PROTOCOL).verdict == "noisy"


def test_drift_does_not_spoil_processes_that_agree():
    """One of four processes met a slow machine; the others agree without it."""
    samples = [sample(1.0), sample(1.001), sample(1.6, reference=1.6), sample(1.0005)]
    summary = summarise(samples, "median", PROTOCOL)
    assert summary.drift == pytest.approx(0.6)
    assert summary.verdict == "good"


def test_no_reference_no_drift():
    assert reference_drift([sample(1.0, reference=None)] * 3) is None
    assert summarise([sample(1.0, reference=None), sample(2.0, reference=None)], "median", PROTOCOL).verdict == "noisy"


def test_no_interval_is_narrower_than_the_models_around_it():
    lucky, usual, noisy = (1.0, 1.0, 1.0), (1.0, 1.01, 1.02), (1.0, 1.1, 1.2)
    noise = typical_noise([lucky, lucky, usual, noisy, noisy])
    low, high = smallest_interval(usual)
    assert noise == pytest.approx((high - low) / 2)
    assert smallest_interval(lucky) == (1.0, 1.0)
    assert smallest_interval(lucky, noise) == pytest.approx((low, high))
    assert smallest_interval(noisy, noise) == smallest_interval(noisy)
    assert typical_noise([usual] * 4) == 0.0
    assert typical_noise([(1.0,)] * 9) == 0.0
