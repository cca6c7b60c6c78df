"""Predictors that learn from the target's measurements alone."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors import load_model, save_model
from gnomon.predictors.bundle import Provenance
from gnomon.predictors.gradient_boosting import GradientBoostingPredictor
from gnomon.predictors.hat_mlp import HATMLPPredictor
from gnomon.predictors.lookup import LookupPredictor
from gnomon.predictors.one_cost import COSTS, OneCostPredictor
from gnomon.predictors.ridge import RidgePredictor
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.testing import LatencyPredictorSuite

SPACES = {
    "mobile_cnn": MobileCNN((1, 28, 28), 10, width=0.5, blocks=5),
    "nasbench201": NASBench201(),
    "nasbench_macro": NASBenchMacro(),
}
SMALL_MLP = {"width": 32, "layers": 2, "steps": 100, "learning_rate": 3e-3}


@pytest.fixture(scope="module", params=SPACES)
def space(request):
    return SPACES[request.param]


class TestMACs(LatencyPredictorSuite):
    # Left-out errors are those of the references, which are larger networks than most.
    min_coverage = 0.55

    @pytest.fixture
    def predictor(self, space):
        return OneCostPredictor(space)


class TestLookup(LatencyPredictorSuite):
    min_rank_correlation = 0.5

    @pytest.fixture
    def predictor(self, space):
        return LookupPredictor(space)


class TestRidge(LatencyPredictorSuite):
    min_rank_correlation = 0.9

    @pytest.fixture
    def predictor(self):
        return RidgePredictor(SPACES["nasbench_macro"])


class TestGradientBoosting(LatencyPredictorSuite):
    min_rank_correlation = 0.8

    @pytest.fixture
    def predictor(self):
        return GradientBoostingPredictor(SPACES["nasbench201"], trees=30)


class TestHATMLP(LatencyPredictorSuite):
    min_rank_correlation = 0.5

    @pytest.fixture
    def predictor(self):
        return HATMLPPredictor(SPACES["nasbench201"], **SMALL_MLP)


@pytest.mark.parametrize("cost", COSTS)
def test_ranks_of_one_cost_are_those_of_the_cost(space, cost):
    predictor = OneCostPredictor(space, cost=cost)
    rows = predictor.references(10)
    model = predictor.adapt(rows, 1 + space.costs(rows).columns()[cost] / 1e6)
    queries = space.sample(200, np.random.default_rng(0))
    costs = space.costs(queries).columns()[cost]
    np.testing.assert_allclose(model.predict_mean(queries), 1 + costs / 1e6, rtol=1e-6)


def test_a_cost_that_misleads_is_not_used():
    space = SPACES["nasbench_macro"]
    predictor = OneCostPredictor(space, cost="macs")
    rows = predictor.references(10)
    mean = predictor.adapt(rows, 1 / space.costs(rows).macs).predict_mean(rows)
    assert np.ptp(mean) < 1e-9 * mean.max()


def test_a_full_table_is_recovered():
    space = SPACES["nasbench_macro"]
    entries = np.random.default_rng(0).uniform(0.5, 2.0, (len(space.decisions), 3))
    rows = np.unique(space.sample(800, np.random.default_rng(1)), axis=0)
    rows = rows[np.random.default_rng(2).permutation(len(rows))]

    def latency(genotypes):
        return entries[np.arange(len(space.decisions)), genotypes].sum(axis=1)

    model = LookupPredictor(space, table="places", ridge=1e-6).adapt(rows[:400], latency(rows[:400]))
    mean, deviation = model.predict(rows[400:])
    np.testing.assert_allclose(mean, latency(rows[400:]), rtol=1e-3)
    assert (deviation <= 0.011 * mean).all()


def test_trees_as_arrays_say_what_scikit_learn_says():
    from sklearn.ensemble import GradientBoostingRegressor

    from gnomon.predictors.boosted_trees import fit_boosted_trees

    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 6)).round(1)
    targets = features[:, 0] * features[:, 1] + rng.normal(size=300)
    ours = fit_boosted_trees(features, targets, trees=40, depth=4, learning_rate=0.2, seed=3)
    theirs = GradientBoostingRegressor(n_estimators=40, max_depth=4, learning_rate=0.2, random_state=3)
    queries = rng.normal(size=(5000, 6)).round(1)
    np.testing.assert_allclose(ours.predict(queries), theirs.fit(features, targets).predict(queries), rtol=1e-9)


def test_one_measurement_repeated_is_left_out_whole():
    space = SPACES["nasbench_macro"]
    predictor = GradientBoostingPredictor(space, trees=200, depth=8)
    rows = predictor.references(10)
    latencies = np.random.default_rng(0).uniform(1, 2, 10)
    once, thrice = (predictor.adapt(np.repeat(rows, n, 0), np.repeat(latencies, n)) for n in (1, 3))
    assert thrice.regression.relative_noise > 0.5 * once.regression.relative_noise


def test_hats_mlp_learns_from_columns_alone(data_root):
    table = np.genfromtxt(next((data_root / "hat").glob("wmt14ende_cpu_xeon*.csv")), delimiter=",", names=True)
    values = np.stack([table[name] for name in table.dtype.names], axis=1)
    features, latencies = values[:, :10], values[:, 10] + values[:, 11]
    predictor = HATMLPPredictor(SPACES["nasbench_macro"], width=64, steps=500, learning_rate=1e-3, parts=2)
    regression = predictor.regress(features[:1600], latencies[:1600])
    mean, deviation = regression.predict(features[1800:])
    error = np.abs(mean - latencies[1800:])
    assert (error / latencies[1800:]).mean() < 0.08
    assert 0.8 < (error <= 1.645 * deviation).mean() < 0.99


def test_a_file_for_another_space_is_refused(tmp_path):
    space = SPACES["nasbench_macro"]
    predictor = RidgePredictor(space)
    rows = predictor.references(10)
    model = predictor.adapt(rows, np.linspace(1, 2, 10))
    model.space = SPACES["nasbench201"]
    save_model(tmp_path, model, Provenance("s", "p", (), ()))
    with pytest.raises(PredictorError, match="arrays"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda s: OneCostPredictor(s, cost="watts"), "cost"),
        (lambda s: LookupPredictor(s, table="both"), "table"),
        (lambda s: LookupPredictor(s, ridge=-1), "ridge"),
        (lambda s: RidgePredictor(s, ridge=float("nan")), "ridge"),
        (lambda s: GradientBoostingPredictor(s, trees=0), "trees"),
        (lambda s: GradientBoostingPredictor(s, depth=1.5), "depth"),
        (lambda s: HATMLPPredictor(s, parts=1), "parts"),
        (lambda s: HATMLPPredictor(s, learning_rate=0), "learning_rate"),
    ],
)
def test_settings_out_of_range_are_refused(make, field):
    with pytest.raises(PredictorError, match=field):
        make(SPACES["nasbench_macro"])


def test_a_falling_rate_averages_noise():
    """At a high rate the last steps follow the noise of their batches."""
    errors: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        features = rng.random((1000, 6))
        true = 1.0 + features @ np.arange(1.0, 7.0)
        true /= true.mean()
        measured = true * (1.0 + 0.05 * rng.standard_normal(len(true)))
        for decay, found in errors.items():
            predictor = HATMLPPredictor(
                SPACES["nasbench201"], width=32, steps=600, learning_rate=1e-2, decay=decay, seed=seed
            )
            network = predictor.fit_columns(features[:700], measured[:700])
            found.append(float(np.abs(network.predict(features[700:]) / true[700:] - 1.0).mean()))
    assert np.mean(errors[True]) < 0.9 * np.mean(errors[False])
