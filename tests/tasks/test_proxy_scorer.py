"""Scoring, storing, ranking, and the evaluator."""

import sqlite3

import numpy as np
import pytest

from gnomon.errors import ConfigError, StudyError, TaskError
from gnomon.tasks.proxies.evaluator import ProxyEvaluator, reference_rows
from gnomon.tasks.proxies.gradients import GradNorm
from gnomon.tasks.proxies.ranks import ReferenceRanks
from gnomon.tasks.proxies.relu_codes import NWOT
from gnomon.tasks.proxies.scorer import NetworkScorer, scores
from gnomon.tasks.proxies.sizes import MACs, Parameters
from gnomon.tasks.proxies.store import ScoreStore
from gnomon.tasks.recorded import RecordedTask


@pytest.fixture
def rows():
    return np.array([[0, 0], [1, 1], [0, 1]], dtype=np.int8)


def test_scores_are_columns_of_proxies(tiny_space, make_task, rows):
    found = scores(tiny_space, rows, make_task(), 0, [GradNorm(), Parameters()], batch_size=8)
    assert found.shape == (3, 2)
    assert np.isfinite(found).all()
    expected = [sum(p.numel() for p in tiny_space.build(tiny_space.config(row)).parameters()) for row in rows]
    assert found[:, 1].tolist() == expected
    np.testing.assert_array_equal(
        found, scores(tiny_space, rows, make_task(), 0, [GradNorm(), Parameters()], batch_size=8)
    )
    other = scores(tiny_space, rows, make_task(), 1, [GradNorm(), Parameters()], batch_size=8)
    assert (found[:, 0] != other[:, 0]).all()


def test_no_rows_no_scores(tiny_space, make_task):
    assert scores(tiny_space, np.zeros((0, 2), dtype=np.int8), make_task(), 0, [MACs()]).shape == (0, 1)


def test_proxies_do_not_disturb_each_other(tiny_space, make_task, rows):
    alone = scores(tiny_space, rows, make_task(), 0, [NWOT()], batch_size=8)
    among = scores(tiny_space, rows, make_task(), 0, [GradNorm(), NWOT(), MACs()], batch_size=8)
    np.testing.assert_array_equal(alone[:, 0], among[:, 1])


def test_repeats_are_averaged(tiny_space, make_task, rows):
    twice = NetworkScorer(tiny_space, make_task(), [GradNorm()], batch_size=8, repeats=2)
    once = NetworkScorer(tiny_space, make_task(), [GradNorm()], batch_size=8)
    assert (twice.scores(rows, 0) != once.scores(rows, 0)).all()


def test_stored_scores_are_not_computed_again(tiny_space, make_task, rows, tmp_path, monkeypatch):
    file = tmp_path / "scores.sqlite"
    settings = {"batch_size": 8, "store": file}
    first = scores(tiny_space, rows, make_task(), 0, [GradNorm(), MACs()], **settings)
    monkeypatch.setattr(tiny_space, "build", lambda config: pytest.fail("built again"))
    np.testing.assert_array_equal(first, scores(tiny_space, rows, make_task(), 0, [GradNorm(), MACs()], **settings))
    with pytest.raises(pytest.fail.Exception):
        scores(tiny_space, rows, make_task(), 1, [GradNorm()], **settings)
    (scope,) = ScoreStore(file).scopes()
    assert (scope["seed"], scope["batch_size"], scope["repeats"]) == (0, 8, 1)


def test_the_store_keeps_minus_infinity(tmp_path):
    store = ScoreStore(tmp_path / "scores.sqlite")
    store.put({"seed": 0}, "0.1", {"nwot": "a"}, {"nwot": (-np.inf, 0.5)})
    assert store.get({"seed": 0}, "0.1", {"nwot": "a"}) == {"nwot": (-np.inf, 0.5)}
    assert store.get({"seed": 0}, "0.1", {"nwot": "b"}) == {}
    assert store.get({"seed": 1}, "0.1", {"nwot": "a"}) == {}


def test_files_of_others_are_left_alone(tmp_path):
    file = tmp_path / "other.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = file.read_bytes()
    with pytest.raises(StudyError, match="not a store"):
        ScoreStore(file)
    assert file.read_bytes() == before
    (tmp_path / "damaged.sqlite").write_bytes(b"SQLite format 3\0" + bytes(3000))
    with pytest.raises(StudyError):
        ScoreStore(tmp_path / "damaged.sqlite")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": "cifar"}, "quality.inputs='cifar'"),
        ({"batch_size": 1}, "quality.batch_size=1"),
        ({"repeats": 0}, "quality.repeats=0"),
        ({"proxies": []}, "quality.proxies"),
        ({"proxies": [MACs(), MACs()]}, "quality.proxies"),
        ({"proxies": ["nwot"]}, "quality.proxies"),
        ({"reference": 3}, "quality.reference=3"),
    ],
)
def test_wrong_settings_are_named(tiny_space, make_task, changes, message):
    with pytest.raises(ConfigError, match=message):
        ProxyEvaluator(**{"space": tiny_space, "task": make_task(), "proxies": [MACs()], **changes})


def test_tasks_without_examples_say_what_to_do(tiny_space, rows):
    task = RecordedTask("CIFAR-100", (1, 8, 8), 3)
    with pytest.raises(TaskError, match="gaussian"):
        scores(tiny_space, rows, task, 0, [NWOT()])
    assert np.isfinite(scores(tiny_space, rows, task, 0, [NWOT()], inputs="gaussian", batch_size=8)).all()


def test_too_few_examples_are_an_error(tiny_space, make_task, rows):
    with pytest.raises(TaskError, match="batch_size"):
        scores(tiny_space, rows, make_task(), 0, [NWOT()], batch_size=10_000)


# ---- Ranks -----------------------------------------------------------------------------------


def test_ranks_are_strictly_increasing_in_the_score_everywhere():
    ranks = ReferenceRanks(np.array([[0.0], [1.0], [1.0], [4.0], [-np.inf]]))
    scores = np.array([[-np.inf], [-50.0], [-1.0], [0.0], [0.5], [1.0], [2.0], [4.0], [5.0], [100.0], [1e9]])
    shares = ranks.shares(scores)[:, 0]
    assert (np.diff(shares) > 0).all()
    assert shares[0] > 0
    assert shares[-1] < 1


def test_ranks_do_not_depend_on_units():
    rng = np.random.default_rng(0)
    reference, values = rng.normal(size=(32, 2)), rng.normal(size=(10, 2))
    scaled = np.array([1e9, 1e-6])
    np.testing.assert_allclose(
        ReferenceRanks(reference).combined(values), ReferenceRanks(reference * scaled).combined(values * scaled)
    )


def test_combined_rank_is_the_geometric_mean():
    reference = np.array([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    ranks = ReferenceRanks(reference)
    both = ranks.combined(np.array([[3.0, 0.0], [1.5, 15.0], [2.0, 20.0]]))
    shares = ranks.shares(np.array([[3.0, 0.0]]))[0]
    assert both[0] == pytest.approx(np.sqrt(shares.prod()))
    assert both[0] < both[1] < both[2], "good by one proxy and bad by the other is worse than middling by both"


def test_proxies_that_rank_nothing_are_refused():
    with pytest.raises(TaskError, match="reference"):
        ReferenceRanks(np.full((5, 1), -np.inf))


# ---- The evaluator ---------------------------------------------------------------------------


def test_evaluator_needs_its_reference_networks(tiny_space, make_task):
    with pytest.raises(TaskError, match="prepare"):
        ProxyEvaluator(tiny_space, make_task(), [MACs()]).evaluate(
            tiny_space.architecture(np.array([0, 0], dtype=np.int8)), seed=0
        )


def test_larger_networks_rank_higher_by_size(tiny_space, make_task, tmp_path):
    evaluator = ProxyEvaluator(tiny_space, make_task(), [MACs(), Parameters()], batch_size=8, reference=4)
    evaluator.prepare(tmp_path, seed=0)
    small, large = (
        evaluator.evaluate(tiny_space.architecture(np.array(row, dtype=np.int8)), seed=1) for row in ([0, 0], [1, 1])
    )
    assert 0 < small.quality < large.quality < 1
    assert set(large.metrics) == {"macs", "parameters", "degenerate"}
    assert large.metrics["degenerate"] == 0


def test_preparation_goes_on_where_it_was_killed(tiny_space, make_task, tmp_path, monkeypatch):
    def evaluator():
        return ProxyEvaluator(tiny_space, make_task(), [MACs()], batch_size=8, reference=4)

    class KilledError(Exception):
        pass

    built = []
    build = tiny_space.build

    def killed(config):
        if len(built) == 2:
            raise KilledError
        built.append(config)
        return build(config)

    monkeypatch.setattr(tiny_space, "build", killed)
    with pytest.raises(KilledError):
        evaluator().prepare(tmp_path, seed=0)
    monkeypatch.setattr(tiny_space, "build", lambda config: built.append(config) or build(config))
    evaluator().prepare(tmp_path, seed=0)
    assert len(built) == len(reference_rows(tiny_space, 4, 0)), "what was scored before the kill is not scored again"


def test_reference_rows_are_distinct_and_follow_the_seed():
    from gnomon.search_spaces.nasbench201 import NASBench201

    space = NASBench201((3, 8, 8), channels=4, cells=1)
    rows = reference_rows(space, 32, 0)
    assert len(np.unique(rows, axis=0)) == 32
    np.testing.assert_array_equal(rows, reference_rows(space, 32, 0))
    assert not np.array_equal(rows, reference_rows(space, 32, 1))


def test_default_proxies_are_those_of_the_config():
    from pathlib import Path

    from omegaconf import OmegaConf

    import gnomon.conf
    from gnomon.tasks.proxies.catalog import default_proxies

    config = OmegaConf.load(Path(gnomon.conf.__file__).parent / "quality" / "proxy.yaml")
    named = [node["_target_"] for node in config.proxies]
    assert named == [f"{type(p).__module__}.{type(p).__qualname__}" for p in default_proxies()]


def test_scores_are_columns_for_quality_predictors():
    """A quality that no gene shows, but a proxy does, is learnt from its column."""
    from functools import partial

    from gnomon.predictors.quality_trees import BoostedTreesQuality
    from gnomon.search_spaces.nasbench201 import NASBench201

    space = NASBench201((3, 8, 8), classes=3, channels=4, cells=1)
    scorer = NetworkScorer(space, RecordedTask("noise", (3, 8, 8), 3), [MACs(), Parameters()], inputs="gaussian")
    columns = partial(scorer.scores, seed=0)
    rows = np.unique(space.sample(40, np.random.default_rng(0)), axis=0)
    quality = -columns(rows)[:, 0]
    predictor = BoostedTreesQuality(space, extra=columns).fit(rows[:24], quality[:24])
    mean, _ = predictor.predict(rows[24:])
    assert np.corrcoef(mean, quality[24:])[0, 1] > 0.8
