"""HELP: conformance, both lives, switches, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PredictorError, SchemaError
from gnomon.predictors.help import HelpPredictor, progress_bar
from gnomon.predictors.predictor_bundle import Learnt, class_path, save_predictor
from gnomon.records.pool import DevicePool
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.testing import LatencyPredictorSuite

CELLS = NASBench201()
MACRO = NASBenchMacro()
QUICK = {"episodes": 30, "query": 40, "tasks": 4, "validate_every": 10, "draws": 3}


def simulated_pool(space, n_settings=6, n_rows=250, seed=0):
    """Settings that weigh MACs, CIO and parameters each in its own way."""
    rng = np.random.default_rng(seed)
    named = space.named_genotype(next(iter(space.named)))[None] if space.named else space.sample(1, rng)
    rows = np.unique(np.concatenate([named, space.sample(n_rows, rng)]), axis=0)
    columns = space.costs(rows).columns()
    costs = np.stack([columns[name] / columns[name].mean() for name in ("macs", "cio", "parameters")], axis=1)
    latencies = (0.5 + costs @ rng.uniform(0.1, 1.5, (3, n_settings))) * rng.lognormal(0, 0.01, (len(rows), n_settings))
    return DevicePool(tuple(f"device{i}" for i in range(n_settings)), latencies, "simulated", space, rows)


@pytest.fixture(scope="module")
def trained():
    """Trained for long enough to rank, by much larger steps than HELP's."""
    predictor = HelpPredictor(MACRO, **{**QUICK, "episodes": 120}, learning_rate=2e-3, validation=["device5"])
    predictor.fit(simulated_pool(MACRO))
    return predictor


@pytest.fixture(scope="module")
def state():
    predictor = HelpPredictor(MACRO, **QUICK)
    predictor.fit(simulated_pool(MACRO))
    return predictor.state()


def restored(state, **settings):
    predictor = HelpPredictor(MACRO, **{**QUICK, **settings})
    predictor.restore(state)
    return predictor


class TestHelp(LatencyPredictorSuite):
    # Ten left-out errors say only roughly how large errors are.
    min_coverage = 0.6

    @pytest.fixture
    def predictor(self, trained):
        return trained


@pytest.fixture(scope="module")
def trained_on_graphs():
    predictor = HelpPredictor(CELLS, **{**QUICK, "episodes": 250}, learning_rate=1e-3)
    predictor.fit(simulated_pool(CELLS))
    return predictor


@pytest.mark.slow
class TestHelpOnGraphs(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self, trained_on_graphs):
        return trained_on_graphs


def measured(predictor, n=10, factor=1.0):
    rows = predictor.references(n)
    return rows, factor * (1 + MACRO.costs(rows).macs / MACRO.costs(rows).macs.mean())


def test_meta_training_learns(trained, state):
    rows, latencies = measured(trained)
    queries = MACRO.sample(300, np.random.default_rng(0))
    truth = MACRO.costs(queries).macs
    errors = []
    for predictor in (trained, restored(state)):
        mean, _ = predictor.adapt(rows, latencies).predict(queries)
        errors.append(1 - np.corrcoef(mean, truth)[0, 1])
    assert errors[0] < 0.5 * errors[1]


def test_what_was_learnt_comes_back_to_the_last_bit(trained):
    again = HelpPredictor(MACRO, **QUICK)
    assert again.state() == {}
    again.restore({name: array.copy() for name, array in trained.state().items()})
    rows, latencies = measured(trained)
    np.testing.assert_array_equal(again.references(10), rows)
    queries = MACRO.sample(50, np.random.default_rng(0))
    for left, right in zip(*(p.adapt(rows, latencies).predict(queries) for p in (trained, again)), strict=True):
        np.testing.assert_array_equal(left, right)
    again.restore({})
    with pytest.raises(PredictorError, match="learns from a pool"):
        again.references(10)


def test_a_bundle_is_loaded(state, tmp_path):
    predictor = restored(state)
    save_predictor(tmp_path, predictor, Learnt(class_path(predictor), MACRO.spec(), "simulated", ("a",), 1))
    again = HelpPredictor(MACRO, bundle=tmp_path).state()
    assert all(np.array_equal(array, again[name]) for name, array in state.items())


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, state):
    path = tmp_path / "help.safetensors"
    pool = simulated_pool(MACRO)

    def kill(progress):
        if progress.episode == 17:
            raise Killed

    with pytest.raises(Killed):
        HelpPredictor(MACRO, **QUICK, checkpoint=path).fit(pool, progress=kill)
    episodes = []
    resumed = HelpPredictor(MACRO, **QUICK, checkpoint=path)
    resumed.fit(pool, progress=lambda p: episodes.append(p.episode))
    assert episodes == list(range(11, 31)), "from the last checkpoint to the end"
    assert resumed.state().keys() == state.keys()
    for name, array in resumed.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "help.safetensors"
    few = {**QUICK, "episodes": 2}
    HelpPredictor(MACRO, **few, checkpoint=path).fit(simulated_pool(MACRO))
    with pytest.raises(PredictorError, match="other data, with other settings or another seed"):
        HelpPredictor(MACRO, **few, checkpoint=path).fit(simulated_pool(MACRO), seed=1)
    with pytest.raises(PredictorError, match="checkpoint"):
        HelpPredictor(MACRO, **few, checkpoint=path).fit(simulated_pool(MACRO, seed=1))
    path.write_bytes(b"nothing")
    with pytest.raises(SchemaError, match="cannot read the checkpoint"):
        HelpPredictor(MACRO, **few, checkpoint=path).fit(simulated_pool(MACRO))


def test_seeds_differ(state):
    other = HelpPredictor(MACRO, **{**QUICK, "episodes": 1})
    other.fit(simulated_pool(MACRO), seed=5)
    assert not np.array_equal(other.state()["initial.head0.weight"], state["initial.head0.weight"])


def test_without_steps_measurements_beside_the_references_change_the_scale_only(trained):
    predictor = restored(trained.state(), steps=0)
    rows, latencies = measured(predictor, 14)
    queries = MACRO.sample(200, np.random.default_rng(0))
    first = predictor.adapt(rows[:10], latencies[:10]).predict_mean(queries)
    second = predictor.adapt(rows, latencies).predict_mean(queries)
    unfloored = (first > first.min()) & (second > second.min())
    assert np.corrcoef(first[unfloored], second[unfloored])[0, 1] > 1 - 1e-6
    stepping = restored(trained.state(), steps=2)
    moved = stepping.adapt(rows, latencies).predict_mean(queries)
    assert np.corrcoef(moved, first)[0, 1] < 1 - 1e-6


@pytest.mark.parametrize("ablation", [{"modulate": False}, {"embed": False}, {"steps": 0}])
def test_ablations_train_and_predict(ablation):
    predictor = HelpPredictor(MACRO, **{**QUICK, "episodes": 3}, **ablation)
    predictor.fit(simulated_pool(MACRO))
    mean, deviation = predictor.adapt(*measured(predictor)).predict(MACRO.sample(20, np.random.default_rng(0)))
    assert (mean > 0).all()
    assert (deviation > 0).all()


def test_without_embedding_and_steps_all_devices_rank_alike(trained):
    predictor = restored(trained.state(), embed=False, steps=0)
    rows, latencies = measured(predictor)
    queries = MACRO.sample(100, np.random.default_rng(0))
    first, second = (predictor.adapt(rows, values).predict_mean(queries) for values in (latencies, np.sqrt(latencies)))
    unfloored = (first > first.min()) & (second > second.min())
    assert np.corrcoef(first[unfloored], second[unfloored])[0, 1] > 1 - 1e-6


def test_without_z_draws_agree(state):
    rows, latencies = measured(restored(state))
    queries = MACRO.sample(50, np.random.default_rng(0))
    means = [restored(state, modulate=False, draws=n).adapt(rows, latencies).predict_mean(queries) for n in (1, 5)]
    np.testing.assert_allclose(means[0], means[1], rtol=1e-5)


def test_helps_own_protocol(state):
    predictor = restored(state, support="others", scaling="pool", denormalisation="two_point")
    rows, latencies = measured(predictor, 20)
    with pytest.raises(PredictorError, match="bounds_ms"):
        predictor.adapt(rows, latencies)
    with pytest.raises(PredictorError, match="support=others"):
        predictor.adapt(rows[:10], latencies[:10], bounds_ms=(0.1, 5.0))
    model = predictor.adapt(rows, latencies, bounds_ms=(latencies.min(), latencies.max()))
    others = model.predict_mean(rows[10:])
    assert others.min() == pytest.approx(latencies[10:].min(), rel=0.02)
    assert others.max() == pytest.approx(latencies[10:].max(), rel=0.02)


def test_references_are_the_set_then_others(state):
    predictor = restored(state)
    ten = predictor.references(10)
    np.testing.assert_array_equal(predictor.references(15, seed=4)[:10], ten)
    np.testing.assert_array_equal(predictor.references(5), ten[:5])
    among = np.concatenate([MACRO.sample(50, np.random.default_rng(3)), ten[6:8]])
    chosen = set(MACRO.keys(predictor.references(10, among=among)))
    assert set(MACRO.keys(ten[6:8])) <= chosen <= set(MACRO.keys(MACRO.canonical(among)))


def test_missing_references_are_estimated(trained):
    rows, latencies = measured(trained)
    queries = MACRO.sample(300, np.random.default_rng(0))
    whole, part = trained.adapt(rows, latencies), trained.adapt(rows[:7], latencies[:7])
    np.testing.assert_allclose(part.adaptation.embedding, whole.adaptation.embedding, atol=0.25)
    assert np.corrcoef(part.predict_mean(queries), whole.predict_mean(queries))[0, 1] > 0.95


def test_given_references_are_used():
    pool = simulated_pool(MACRO)
    references = pool.genotypes[[3, 50, 99, 120, 7]]
    predictor = HelpPredictor(MACRO, references=references.tolist(), **{**QUICK, "episodes": 1})
    np.testing.assert_array_equal(predictor.references(5), references)
    predictor.fit(pool)
    np.testing.assert_array_equal(predictor.state()["references"], references)


def test_the_bar_follows(capsys):
    with progress_bar() as progress:
        HelpPredictor(MACRO, **{**QUICK, "episodes": 2}).fit(simulated_pool(MACRO), progress=progress)
    assert "2/2" in capsys.readouterr().err


def test_bad_pools_and_states_are_refused(state):
    pool = simulated_pool(MACRO)
    with pytest.raises(PredictorError, match="another space"):
        HelpPredictor(MACRO).fit(simulated_pool(CELLS, 2, 20))
    with pytest.raises(PredictorError, match="validation"):
        HelpPredictor(MACRO, validation=["device9"]).fit(pool)
    with pytest.raises(PredictorError, match="no setting is left"):
        HelpPredictor(MACRO, validation=list(pool.settings)).fit(pool)
    with pytest.raises(PredictorError, match="references"):
        HelpPredictor(MACRO, references=pool.genotypes[:5]).fit(pool.rows(np.arange(5, 100)))
    with pytest.raises(PredictorError, match="too few latencies"):
        HelpPredictor(MACRO).fit(pool.rows(np.arange(10)))
    with pytest.raises(PredictorError, match="n_references"):
        HelpPredictor(MACRO, n_references=20).fit(pool.rows(np.arange(15)))
    with pytest.raises(PredictorError, match="arrays"):
        HelpPredictor(CELLS).restore(state)
    with pytest.raises(PredictorError, match=r"initial\.head2\.bias"):
        HelpPredictor(MACRO).restore({k: v for k, v in state.items() if k != "initial.head2.bias"})


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"n_references": 1}, "n_references"),
        ({"references": [[0] * 8, [0] * 8]}, "references"),
        ({"selection": "first"}, "selection"),
        ({"selection": "validation"}, "validation"),
        ({"trim": 0.5}, "trim"),
        ({"support": "some"}, "support"),
        ({"scaling": "none"}, "scaling"),
        ({"denormalisation": "none"}, "denormalisation"),
        ({"draws": 0}, "draws"),
        ({"steps": -1}, "steps"),
        ({"learning_rate": 0}, "learning_rate"),
    ],
)
def test_settings_out_of_range_are_refused(settings, field):
    with pytest.raises(PredictorError, match=field):
        HelpPredictor(MACRO, **settings)
