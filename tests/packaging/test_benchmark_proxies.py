"""The parts of the benchmarks of proxies, and their quick runs."""

import argparse

import numpy as np
import pytest
from scipy import stats

from benchmarks import yolobench as yolobench_benchmark
from benchmarks import zero_cost
from gnomon.records import ArchitectureTable
from gnomon.search_spaces.yolobench import YOLOBench


def test_correlation_takes_minus_infinity_as_the_least():
    accuracy = np.array([0.01, 0.2, 0.5, 0.6])
    assert zero_cost.correlation(stats.spearmanr, np.array([-np.inf, -3.0, 0.0, 1e9]), accuracy) == pytest.approx(1)
    assert zero_cost.correlation(stats.kendalltau, np.array([5.0, -3.0, -4.0, -np.inf]), accuracy) == pytest.approx(-1)
    assert zero_cost.correlation(stats.spearmanr, np.zeros(4), accuracy) == 0


def test_first_networks_of_a_good_proxy_are_better():
    accuracy = np.random.default_rng(1).uniform(size=400)
    good = zero_cost.first_accuracy(accuracy, accuracy)
    assert good > 90
    assert zero_cost.first_accuracy(-accuracy, accuracy) < 10
    noise = zero_cost.first_accuracy(np.random.default_rng(2).normal(size=400), accuracy)
    assert 40 < noise < 60


@pytest.fixture
def table():
    """All detectors; the precision follows the nominal work, the latency too but for noise."""
    space = YOLOBench()
    rows = space.enumerate()
    work = space.costs(rows).macs
    rng = np.random.default_rng(0)
    latency = {device: work * rng.uniform(1, 3, len(rows)) for device in ("one", "two", "three")}
    precision = {f"map_{data}": np.log(work) for data in ("voc", "sku", "wider", "coco")}
    return ArchitectureTable(space, rows, precision | latency, "a paper", {}, {name: name for name in latency})


def test_a_perfect_proxy_finds_the_front(table):
    metrics = yolobench_benchmark.proxy_metrics("exact", table, table.columns["map_voc"], ("one", "two"))
    assert metrics["exact.kendall.voc"] == pytest.approx(1)
    assert metrics["exact.recall.mean"] == 1
    assert metrics["exact.hypervolume.mean"] == pytest.approx(1)
    noise = np.random.default_rng(0).normal(size=len(table.genotypes))
    assert yolobench_benchmark.proxy_metrics("noise", table, noise, ("one",))["noise.recall.mean"] < 0.7


def test_recall_counts_the_true_front_only(table):
    front = np.flatnonzero(yolobench_benchmark.true_front(table, "one"))
    rest = np.setdiff1d(np.arange(len(table.genotypes)), front)
    assert yolobench_benchmark.scored(table, "one", front)[0] == 1
    assert yolobench_benchmark.scored(table, "one", rest)[0] == 0
    assert yolobench_benchmark.scored(table, "one", front[:5])[0] == pytest.approx(5 / len(front))


def test_latency_elsewhere_leaves_the_device_out(table):
    expected = np.log(table.columns["two"] * table.columns["three"]) / 2
    np.testing.assert_allclose(yolobench_benchmark.elsewhere(table, "one"), expected)


@pytest.mark.slow
def test_quick_run_of_zero_cost(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    options = argparse.Namespace(quick=True, store=tmp_path / "scores.sqlite", without=["grasp"], networks=None)
    metrics = zero_cost.run(options)
    assert metrics["networks"] == zero_cost.QUICK_NETWORKS
    assert np.isfinite(list(metrics.values())).all()
    assert "grasp.spearman" not in metrics


@pytest.mark.slow
def test_quick_run_of_yolobench(data_root, monkeypatch):
    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    metrics = yolobench_benchmark.run(True)
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["nsga2.recall.mean"] > metrics["random.recall.mean"]
