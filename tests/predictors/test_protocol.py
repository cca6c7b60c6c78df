"""The few-shot protocol: what is learnt from, measured and scored; tables without architectures."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors import BayesianLinearPredictor, GnomonPredictor
from gnomon.predictors.gradient_boosting import GradientBoostingPredictor
from gnomon.predictors.linear_transfer import LinearTransferPredictor
from gnomon.predictors.protocol import FewShotProtocol, bootstrapped, candidate_half, few_shot_scores
from gnomon.predictors.ridge import RidgePredictor
from gnomon.records import DevicePool
from gnomon.records.splits import DeviceSplit
from gnomon.search_spaces.nasbench201 import NASBench201

SPACE = NASBench201()
SETTINGS = ("a", "b", "c", "far")


@cache
def cells() -> DevicePool:
    """400 cells on four made-up devices, each linear in what runs."""
    rows = np.unique(SPACE.sample(500, np.random.default_rng(0)), axis=0)
    rows = rows[np.random.default_rng(1).permutation(len(rows))[:400]]
    work = SPACE.execution_counts(rows)[:, 0, :4].astype(float)
    weights = np.random.default_rng(2).uniform(0.5, 1.5, (4, len(SETTINGS))) * np.array([1.0, 3.0, 9.0, 2.0])[:, None]
    noise = np.random.default_rng(3).normal(1.0, 0.01, (len(rows), len(SETTINGS)))
    return DevicePool(SETTINGS, (1.0 + work @ weights) * noise, "made up", SPACE, rows)


@cache
def table() -> DevicePool:
    """The same without architectures."""
    rng = np.random.default_rng(0)
    features = rng.uniform(0.2, 2.0, (400, 3))
    latencies = features @ rng.uniform(0.5, 2.0, (3, 4)) * rng.normal(1.0, 0.01, (400, 4))
    return DevicePool(SETTINGS, latencies, "made up", features=features, feature_names=("x", "y", "z"))


def split_of(pool, **changes) -> DeviceSplit:
    queries = {"all": {"rows": [200, 400]}, "overlap": {"rows": [0, 400]}}
    rows = {"source_rows": [0, 200], "reference_rows": [0, 200], "queries": queries}
    return DeviceSplit("test", [pool], ["a", "b", "c"], ["far"], **{**rows, **changes})


def test_good_scores_on_an_unseen_device():
    split = split_of(cells)
    scores = few_shot_scores(GnomonPredictor, split, split.rounds[0], "far", 8, 0)
    assert set(scores) == {"all", "overlap"}
    assert scores["all"].spearman > 0.98
    assert scores["all"].n_measurements == 8
    assert scores["all"].n_architectures == 200


def test_what_was_measured_is_not_asked_about():
    protocol = FewShotProtocol(GnomonPredictor, split_of(cells))
    model = protocol.adapted(protocol.split.rounds[0], "far", 8, 0)
    assert len(set(model.measured.tolist())) == 8
    rows = protocol.answers(model, "far", "overlap").rows
    assert len(rows) == 392
    assert not set(rows.tolist()) & set(model.measured.tolist())


class Spy(BayesianLinearPredictor):
    """Notes what it was given."""

    learns = True

    def __init__(self, space):
        super().__init__(space)
        self.pools, self.among = [], []

    def fit(self, pool, *, seed=0):
        self.pools.append(pool)

    def references(self, n, *, seed=0, among=None):
        self.among.append(among)
        return super().references(n, seed=seed, among=among)


def spied() -> tuple[FewShotProtocol, list[Spy]]:
    made: list[Spy] = []

    def make(space):
        made.append(Spy(space))
        return made[-1]

    return FewShotProtocol(make, split_of(cells)), made


def test_only_source_rows_of_sources_are_learnt_from():
    protocol, made = spied()
    protocol.scores(protocol.split.rounds[0], "far", 6, 0)
    ((pool,), (among,)) = made[0].pools, made[0].among
    assert pool.settings == ("a", "b", "c")
    allowed = set(SPACE.keys(cells().genotypes[:200]))
    assert set(SPACE.keys(pool.genotypes)) <= allowed
    assert set(SPACE.keys(among)) <= allowed
    assert len(among) == 100


def test_a_round_is_learnt_once_a_seed():
    protocol, made = spied()
    chosen = protocol.split.rounds[0]
    for n in (5, 6, 7):
        protocol.scores(chosen, "far", n, 0)
    assert len(made) == 1
    protocol.scores(chosen, "far", 5, 1)
    assert len(made) == 2
    assert SPACE.keys(made[0].pools[0].genotypes) != SPACE.keys(made[1].pools[0].genotypes)


def test_seeds_resample_and_repeat():
    pool, split = cells(), split_of(cells)
    first, again, other = (candidate_half(split, pool, "far", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) == 100
    assert set(first.tolist()) != set(other.tolist())
    drawn = bootstrapped(split.source_pool(pool, split.rounds[0]), 0)
    assert len(drawn) == 200
    assert 100 < len(np.unique(drawn.genotypes, axis=0)) < 150  # 1 - 1/e of 200 are expected
    assert few_shot_scores(GnomonPredictor, split, split.rounds[0], "far", 5, 3) == few_shot_scores(
        GnomonPredictor, split, split.rounds[0], "far", 5, 3
    )


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (GnomonPredictor, 0.98),
        (LinearTransferPredictor, 0.85),
        (partial(GradientBoostingPredictor, trees=20, depth=2), 0.6),
    ],
)
def test_features_serve_where_there_are_no_architectures(make, least):
    split = split_of(table)
    scores = few_shot_scores(make, split, split.rounds[0], "far", 10, 0)["all"]
    assert scores.spearman > least
    assert scores.n_architectures == 200


def test_predictors_of_choices_need_architectures():
    split = split_of(table)
    with pytest.raises(PredictorError, match="needs architectures"):
        few_shot_scores(RidgePredictor, split, split.rounds[0], "far", 10, 0)


def test_mistakes_are_named():
    split = split_of(cells)
    with pytest.raises(PredictorError, match="no target of this round"):
        few_shot_scores(GnomonPredictor, split, split.rounds[0], "a", 10, 0)
    for pool in (cells, table):
        split = split_of(pool)
        with pytest.raises(PredictorError, match="3 to 100"):
            few_shot_scores(GnomonPredictor, split, split.rounds[0], "far", 2, 0)
        with pytest.raises(PredictorError, match="3 to 100"):
            few_shot_scores(GnomonPredictor, split, split.rounds[0], "far", 101, 0)
