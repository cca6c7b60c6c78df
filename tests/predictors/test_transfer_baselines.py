"""Predictors that learn from a pool of other settings."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors.linear_transfer import LinearTransferPredictor, transfer
from gnomon.predictors.nasflat import NASFLATPredictor
from gnomon.predictors.predictor_bundle import Learnt, class_path, save_predictor
from gnomon.predictors.surrogates import fit_surrogates
from gnomon.records.pool import DevicePool
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.testing import LatencyPredictorSuite

SPACES = {
    "mobile_cnn": MobileCNN((1, 28, 28), 10, width=0.5, blocks=3),
    "nasbench201": NASBench201(),
    "nasbench_macro": NASBenchMacro(),
}


def simulated_pool(space, n_settings=5, n_rows=300, seed=0):
    """Settings that weigh MACs, CIO and parameters each in its own way."""
    rng = np.random.default_rng(seed)
    rows = np.unique(space.sample(n_rows, rng), axis=0)
    columns = space.costs(rows).columns()
    costs = np.stack([columns[name] / columns[name].mean() for name in ("macs", "cio", "parameters")], axis=1)
    latencies = (0.5 + costs @ rng.uniform(0.1, 1.5, (3, n_settings))) * rng.lognormal(0, 0.01, (len(rows), n_settings))
    return DevicePool(tuple(f"device{i}" for i in range(n_settings)), latencies, "simulated", space, rows)


@pytest.fixture(scope="module", params=SPACES)
def linear_transfer(request):
    predictor = LinearTransferPredictor(SPACES[request.param])
    predictor.fit(simulated_pool(predictor.space))
    return predictor


@pytest.fixture(scope="module")
def nasflat():
    predictor = NASFLATPredictor(SPACES["nasbench201"], epochs=40)
    predictor.fit(simulated_pool(predictor.space))
    return predictor


class TestLinearTransfer(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self, linear_transfer):
        return linear_transfer


class TestNASFLAT(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self, nasflat):
        return nasflat


@pytest.fixture(params=["linear_transfer", "nasflat"])
def learnt(request):
    if request.param == "nasflat":
        return request.getfixturevalue("nasflat")
    predictor = LinearTransferPredictor(SPACES["nasbench201"])
    predictor.fit(simulated_pool(predictor.space))
    return predictor


def test_what_was_learnt_comes_back_to_the_last_bit(learnt):
    again = type(learnt)(learnt.space)
    again.restore({name: array.copy() for name, array in learnt.state().items()})
    rows = learnt.references(10)
    np.testing.assert_array_equal(again.references(10), rows)
    latencies = 1 + learnt.space.costs(rows).macs / 1e7
    queries = learnt.space.sample(200, np.random.default_rng(0))
    for left, right in zip(*(p.adapt(rows, latencies).predict(queries) for p in (learnt, again)), strict=True):
        np.testing.assert_array_equal(left, right)
    assert all(array.dtype.kind in "fiu" for array in learnt.state().values())


def test_a_bundle_is_loaded(learnt, tmp_path):
    pool = simulated_pool(learnt.space)
    save_predictor(
        tmp_path, learnt, Learnt(class_path(learnt), learnt.space.spec(), pool.source, pool.settings, len(pool))
    )
    again = type(learnt)(learnt.space, bundle=tmp_path)
    assert all(np.array_equal(array, again.state()[name]) for name, array in learnt.state().items())


def test_learning_is_deterministic_by_seed_and_replaces_what_was_learnt(learnt):
    pool = simulated_pool(learnt.space, n_settings=3, n_rows=60, seed=1)
    fast = {"epochs": 2} if isinstance(learnt, NASFLATPredictor) else {}
    first, second, other = (type(learnt)(learnt.space, **fast) for _ in range(3))
    first.fit(simulated_pool(learnt.space, n_settings=2, n_rows=50, seed=2))
    first.fit(pool, seed=1)
    second.fit(pool, seed=1)
    other.fit(pool, seed=2)
    assert first.state().keys() == second.state().keys()
    assert all(np.array_equal(array, second.state()[name]) for name, array in first.state().items())
    if isinstance(learnt, NASFLATPredictor):
        assert not np.array_equal(first.state()["embeddings"], other.state()["embeddings"])


def test_ragged_pools_teach_as_well(learnt):
    pool = simulated_pool(learnt.space)
    latencies = pool.latencies_ms.copy()
    latencies[np.random.default_rng(0).random(latencies.shape) < 0.3] = np.nan
    ragged = DevicePool(pool.settings, latencies, "ragged", pool.space, pool.genotypes)
    predictor = type(learnt)(learnt.space)
    predictor.fit(ragged)
    target = simulated_pool(learnt.space, n_settings=1, n_rows=400, seed=9)
    rows = np.random.default_rng(0).permutation(len(target))
    model = predictor.adapt(target.genotypes[rows[:10]], target.latencies_ms[rows[:10], 0])
    mean = model.predict_mean(target.genotypes[rows[10:]])
    assert np.corrcoef(mean, target.latencies_ms[rows[10:], 0])[0, 1] > 0.95


def test_transfer_knows_more_than_the_measurements_alone(learnt):
    """A device that is one of the sources, times a factor: three measurements are enough."""
    pool = simulated_pool(learnt.space)
    rows = learnt.references(4, among=pool.genotypes)
    keys = learnt.space.keys(pool.genotypes)
    index = np.array([keys.index(key) for key in learnt.space.keys(rows)])
    model = learnt.adapt(rows, 7 * pool.latencies_ms[index, 2])
    mean, _ = model.predict(pool.genotypes)
    assert np.corrcoef(mean, pool.latencies_ms[:, 2])[0, 1] > 0.97
    assert np.median(np.abs(mean / (7 * pool.latencies_ms[:, 2]) - 1)) < 0.12


def test_feature_only_pools_work_through_the_parts():
    rng = np.random.default_rng(0)
    features = rng.uniform(1, 2, (200, 6))
    latencies = features @ rng.uniform(0, 1, (6, 4))
    surrogates = fit_surrogates(features[:150], latencies[:150, :3])
    outputs = surrogates.outputs(features)
    mean, deviation = transfer(outputs[:12], latencies[:12, 3], 0.3).predict(outputs[150:])
    assert np.abs(mean / latencies[150:, 3] - 1).mean() < 0.1
    assert (deviation > 0).all()


def test_what_has_not_learnt_says_so(learnt):
    fresh = type(learnt)(learnt.space)
    rows = learnt.references(5)
    assert fresh.state() == {}
    with pytest.raises(PredictorError, match="learns from a pool"):
        fresh.adapt(rows, np.arange(1.0, 6.0))


def test_wrong_pools_and_arrays_are_refused(learnt):
    with pytest.raises(PredictorError, match="another space"):
        learnt.fit(simulated_pool(SPACES["nasbench_macro"], n_settings=2, n_rows=20))
    with pytest.raises(PredictorError, match="features"):
        learnt.fit(DevicePool(("a",), np.ones((4, 1)), "s", features=np.ones((4, 2)), feature_names=("x", "y")))
    state = learnt.state()
    with pytest.raises(PredictorError, match="arrays"):
        learnt.restore({name: state[name] for name in list(state)[1:]})


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"learning_rate": -1}, {"adapt_steps": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(PredictorError, match=next(iter(settings))):
        NASFLATPredictor(SPACES["nasbench201"], **settings)
