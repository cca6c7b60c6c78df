"""Pools that ship: found by space, carried over to another size, the start of the default predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from gnomon.errors import PredictorError, SchemaError
from gnomon.predictors.features import FeatureBasis
from gnomon.predictors.gnomon import ROWS_PER_FEATURE, GnomonPredictor
from gnomon.predictors.transfer import Sources, carried_over, joined
from gnomon.records import DevicePool
from gnomon.records.pools import save_pool
from gnomon.records.shipped import shipped_pool_file, shipped_pools
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201

LARGE, SMALL = MobileCNN((3, 96, 96), 10), MobileCNN((1, 28, 28), 10, width=0.25)


def latency(space: MobileCNN, rows: np.ndarray, seed: int) -> np.ndarray:
    """Milliseconds an operation of each kind, the same at every size, and a constant."""
    rates = np.random.default_rng(seed).lognormal(0.0, 1.0, len(space.feature_names))
    typical = FeatureBasis(LARGE, executions=True).units
    return 0.02 + (space.encode(rows) * space.feature_units) @ (rates / typical) / len(rates)


def pool(space: MobileCNN, seeds=range(6)) -> DevicePool:
    rows = np.unique(space.sample(120, np.random.default_rng(0)), axis=0)
    values = np.stack([latency(space, rows, seed) for seed in seeds], axis=1)
    return DevicePool(tuple(f"d{seed}" for seed in seeds), values, "made up", space, rows)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("gnomon.records.shipped._folder", lambda: tmp_path)
    save_pool(pool(LARGE), tmp_path / "mobile_cnn-96.npz")
    return tmp_path


def test_rates_are_the_same_at_another_size():
    large, small = FeatureBasis(LARGE, executions=True), FeatureBasis(SMALL, executions=True)
    rates = np.random.default_rng(0).random((3, len(large.names)))
    constants = np.array([[0.1], [0.2], [0.3]])
    weights = np.concatenate([rates, constants + (rates @ large.mean)[:, None]], axis=1)
    carried = carried_over(Sources(weights, np.full(3, 0.01), ("a", "b", "c")), large, small)
    rows = SMALL.sample(50, np.random.default_rng(1))
    physical = SMALL.encode(rows) * SMALL.feature_units
    expected = physical @ (rates / large.units).T + constants.T
    average = (small.mean * small.units) @ (rates / large.units).T + constants.T
    found = (SMALL.encode(rows) - small.mean) @ carried.weights[:, :-1].T + carried.weights[:, -1]
    np.testing.assert_allclose(found, expected / average, rtol=1e-4)
    assert carried.names == ("a", "b", "c")


def test_a_setting_whose_constant_leaves_nothing_is_left_out():
    large, small = FeatureBasis(LARGE, executions=True), FeatureBasis(SMALL, executions=True)
    flat = np.zeros((2, len(large.names) + 1))
    flat[:, -1] = 1.0, -1.0  # the second is negative everywhere
    sources = Sources(flat, np.full(2, 0.01), ("good", "negative"))
    assert carried_over(sources, large, small).names == ("good",)
    with pytest.raises(PredictorError, match="carried over"):
        carried_over(Sources(flat[1:], np.full(1, 0.01), ("negative",)), large, small)


def test_joined_sources_keep_every_setting():
    one = Sources(np.ones((2, 3)), np.array([0.1, 0.2]), ("a", "b"))
    both = joined([one, one])
    assert both.names == ("a", "b", "a #2", "b #2")
    assert both.weights.shape == (4, 3)
    assert both.noise.tolist() == [0.1, 0.2, 0.1, 0.2]


def test_the_pool_of_the_same_size_goes_first(folder):
    assert [p.space.spec() for p in shipped_pools(LARGE)] == [LARGE.spec()]
    assert [p.space.spec() for p in shipped_pools(SMALL)] == [LARGE.spec()]
    save_pool(pool(SMALL), folder / "mobile_cnn-28.npz")
    assert [p.space.spec() for p in shipped_pools(SMALL)] == [SMALL.spec()]
    assert shipped_pools(NASBench201()) == ()
    assert len(shipped_pool_file("mobile_cnn-96")) == len(pool(LARGE))
    with pytest.raises(SchemaError, match="nowhere"):
        shipped_pool_file("nowhere")


def test_what_other_runtimes_taught_at_another_size_helps(folder):
    taught, alone = GnomonPredictor(SMALL, shipped=True), GnomonPredictor(SMALL)
    assert taught.learnt_from == tuple(f"d{seed}" for seed in range(6))
    assert alone.learnt_from == ()
    queries = SMALL.sample(300, np.random.default_rng(9))
    errors = []
    for predictor in (taught, alone):
        ranks = []
        for seed in range(20, 26):
            rows = predictor.references(6)
            model = predictor.adapt(rows, latency(SMALL, rows, seed))
            ranks.append(spearmanr(model.predict(queries)[0], latency(SMALL, queries, seed)).statistic)
        errors.append(1.0 - float(np.mean(ranks)))
    assert errors[0] < errors[1], f"1 - rank correlation {errors[0]:.4f} with the pool, {errors[1]:.4f} without"


def test_a_space_without_a_pool_starts_from_its_structure(folder):
    assert GnomonPredictor(NASBench201(), shipped=True).learnt_from == ()


def test_a_pool_of_few_architectures_is_no_prior():
    space = NASBench201()
    (few,) = shipped_pools(space)
    assert len(few) < ROWS_PER_FEATURE * len(GnomonPredictor(space).basis.mean)
    assert GnomonPredictor(space, shipped=True).learnt_from == ()
