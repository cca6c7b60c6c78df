"""Gnomon's predictor: with and without a pool, executions, timer steps, bundles."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from gnomon.errors import PredictorError, SchemaError
from gnomon.predictors import BayesianLinearPredictor, GnomonPredictor, Learnt, evaluate, load_state, save_predictor
from gnomon.predictors.features import Basis
from gnomon.predictors.predictor_bundle import class_path
from gnomon.predictors.transfer import LinearTransfer, resolution_ms
from gnomon.records import DevicePool
from gnomon.search_spaces.fbnet import FBNet
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.testing import LatencyPredictorSuite

SPACES = {
    "mobile_cnn": MobileCNN((1, 28, 28), 10, width=0.5, blocks=5),
    "nasbench201": NASBench201(),
    "nasbench_macro": NASBenchMacro(),
}
CELLS = NASBench201()


def device(space, genotypes, seed, execution=0):
    """A device of its own taste: latency linear in costs, or in what runs under an execution."""
    rng = np.random.default_rng(seed)
    if not space.executions:
        columns = space.costs(genotypes).columns()
        work = np.stack([columns[name] for name in ("macs", "cio", "parameters")], axis=1)
        reference = space.costs(space.sample(500, np.random.default_rng(0))).columns()
        work = work / [reference[name].mean() for name in ("macs", "cio", "parameters")]
    else:
        work = space.execution_counts(genotypes)[:, execution, :4].astype(float)
    weights = rng.uniform(0.3, 1.5, work.shape[1]) * ([1.0, 3.0, 9.0, 2.0] if space.executions else 1.0)
    noise = np.random.default_rng([seed, 1]).normal(1.0, 0.01, len(genotypes))
    return (0.5 + work @ weights) * noise


def pool_of(space, n=300, executions=(0, 0, 0, 2)):
    rows = np.unique(space.sample(n, np.random.default_rng(5)), axis=0)
    latencies = np.stack([device(space, rows, 100 + i, e) for i, e in enumerate(executions)], axis=1)
    return DevicePool(tuple(f"device{i}" for i in range(len(executions))), latencies, "made up", space, rows)


@cache
def trained(name):
    predictor = GnomonPredictor(SPACES[name])
    predictor.fit(pool_of(SPACES[name]))
    return predictor


class TestWithoutAPool(LatencyPredictorSuite):
    @pytest.fixture(params=SPACES)
    def predictor(self, request):
        return GnomonPredictor(SPACES[request.param])


class TestWithAPool(LatencyPredictorSuite):
    @pytest.fixture(params=SPACES)
    def predictor(self, request):
        return trained(request.param)


def scores(predictor, n, execution, seed=7):
    rows = predictor.references(n)
    model = predictor.adapt(rows, device(CELLS, rows, seed, execution))
    queries = CELLS.sample(600, np.random.default_rng(3))
    return evaluate(model, queries, device(CELLS, queries, seed, execution), n)


@pytest.mark.parametrize("execution", [0, 1, 2])
def test_which_operations_run_is_learnt_from_ten_measurements(execution):
    assert scores(trained("nasbench201"), 10, execution).spearman > 0.98
    assert scores(GnomonPredictor(CELLS), 10, execution).spearman > 0.97


def test_three_measurements_suffice_where_sources_resemble_the_target():
    with_pool, without = scores(trained("nasbench201"), 4, 0), scores(BayesianLinearPredictor(CELLS), 4, 0)
    assert with_pool.spearman > 0.95
    assert with_pool.mape < without.mape


def test_a_pool_may_be_ragged():
    pool = pool_of(CELLS)
    latencies = pool.latencies_ms.copy()
    latencies[::2, 0] = np.nan
    latencies[1::3, 1] = np.nan
    predictor = GnomonPredictor(CELLS)
    predictor.fit(DevicePool(pool.settings, latencies, pool.source, pool.space, pool.genotypes))
    assert scores(predictor, 8, 2).spearman > 0.95


def test_a_setting_without_measurements_is_named():
    pool = pool_of(CELLS)
    latencies = pool.latencies_ms.copy()
    latencies[:, 2] = np.nan
    with pytest.raises(PredictorError, match="device2"):
        GnomonPredictor(CELLS).fit(DevicePool(pool.settings, latencies, pool.source, pool.space, pool.genotypes))


def test_pools_of_other_spaces_and_without_architectures_are_refused():
    with pytest.raises(PredictorError, match="another space"):
        GnomonPredictor(SPACES["nasbench_macro"]).fit(pool_of(CELLS))
    features = DevicePool(("a",), np.ones((5, 1)), "made up", features=np.ones((5, 2)), feature_names=("x", "y"))
    with pytest.raises(PredictorError, match="features, not architectures"):
        GnomonPredictor(CELLS).fit(features)


@pytest.mark.parametrize(
    ("latencies", "step"),
    [([9.0, 17.0, 4.0, 30.0], 1.0), ([0.5, 0.7, 1.1], 0.1), ([10.0, 40.0, 20.0], 10.0), ([1.2345678, 2.7182818], 0.0)],
)
def test_the_step_of_the_timer_is_seen(latencies, step):
    assert resolution_ms(np.array(latencies)) == pytest.approx(step)


def test_a_coarse_timer_widens_the_interval():
    predictor = trained("nasbench201")
    rows = predictor.references(10)
    exact = device(CELLS, rows, 7) / 4
    queries = CELLS.sample(200, np.random.default_rng(3))
    deviation = predictor.adapt(rows, exact).predict(queries)[1].mean()
    assert predictor.adapt(rows, np.maximum(np.round(exact), 1.0)).predict(queries)[1].mean() > 1.3 * deviation


def test_without_architectures_features_serve():
    rng = np.random.default_rng(0)
    features = rng.uniform(0.2, 2.0, (400, 4))
    weights = rng.uniform(0.5, 2.0, (4, 4))
    latencies = features @ weights
    basis = Basis.of_work(features, ("a", "b", "c", "d"))
    plain = LinearTransfer(basis)
    transfer = LinearTransfer(basis, None, plain.fit(features, latencies[:, :3], ("x", "y", "z")))
    mean, _ = transfer.adapt(features[:8], latencies[:8, 3]).predict(features[8:])
    assert np.abs(mean / latencies[8:, 3] - 1).mean() < 0.05


def test_many_choices_adapt_too():
    space = FBNet((3, 64, 64), 10)
    predictor = GnomonPredictor(space)
    predictor.fit(pool_of(space))
    rows = predictor.references(10)
    model = predictor.adapt(rows, device(space, rows, 9))
    queries = space.sample(500, np.random.default_rng(2))
    assert evaluate(model, queries, device(space, queries, 9), 10).spearman > 0.95


# ---- Bundles -----------------------------------------------------------------------------------


def learnt_of(predictor):
    return Learnt(class_path(predictor), predictor.space.spec(), "made up", ("device0",), 300)


def test_a_bundle_gives_the_same_predictions_to_the_last_bit(tmp_path):
    predictor = trained("nasbench201")
    save_predictor(tmp_path, predictor, learnt_of(predictor))
    again = GnomonPredictor(NASBench201(classes=100), bundle=str(tmp_path))  # other classes, same decisions
    rows = predictor.references(6)
    np.testing.assert_array_equal(again.references(6), rows)
    latencies, queries = device(CELLS, rows, 1), CELLS.sample(50, np.random.default_rng(0))
    for one, other in zip(
        predictor.adapt(rows, latencies).predict(queries), again.adapt(rows, latencies).predict(queries), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_foreign_and_damaged_bundles_are_named(tmp_path):
    predictor = trained("nasbench201")
    save_predictor(tmp_path, predictor, learnt_of(predictor))
    with pytest.raises(PredictorError, match="other decisions"):
        load_state(tmp_path, GnomonPredictor(SPACES["nasbench_macro"]))
    with pytest.raises(PredictorError, match="another predictor"):
        load_state(tmp_path, BayesianLinearPredictor(CELLS))
    with pytest.raises(SchemaError):
        GnomonPredictor(CELLS, bundle=tmp_path / "nowhere")
    content = (tmp_path / "predictor.npz").read_bytes()
    (tmp_path / "predictor.npz").write_bytes(content[:-20])
    with pytest.raises(PredictorError, match="differs"):
        GnomonPredictor(CELLS, bundle=tmp_path)
    header = json.loads((tmp_path / "predictor.json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps({**header, "schema": "gnomon.predictor_bundle/99"}))
    with pytest.raises(SchemaError, match="predictor_bundle/1"):
        GnomonPredictor(CELLS, bundle=tmp_path)


def test_nothing_learnt_is_nothing_saved(tmp_path):
    predictor = GnomonPredictor(CELLS)
    with pytest.raises(PredictorError, match="learnt nothing"):
        save_predictor(tmp_path, predictor, learnt_of(predictor))
    with pytest.raises(PredictorError, match="wrong arrays"):
        predictor.restore({"weights": np.zeros((2, 3))})
