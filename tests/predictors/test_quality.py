from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors.normal_scores import NormalScores
from gnomon.predictors.quality import EnsembleQualityPredictor
from gnomon.search_spaces import Costs, Decision, SearchSpace, Workload


class Chain(SearchSpace):
    name = "chain"

    def __init__(self, length: int = 8) -> None:
        self.length = length
        decisions = tuple(Decision(f"layer{i}", ("skip", "small", "large")) for i in range(length))
        super().__init__(decisions, Workload((3, 8, 8)))

    def arguments(self):
        return {"length": self.length}

    def build(self, config):
        raise NotImplementedError

    def costs(self, genotypes):
        work = genotypes.sum(axis=1).astype(float) + 1
        return Costs(work, 10 * work, 5 * work, work)


def accuracy(genotypes):
    g = genotypes.astype(float)
    return 95 - 40 * np.exp(-(g @ np.linspace(0.1, 0.4, g.shape[1]))) - 0.5 * (g[:, 0] == 0) * (g[:, 1] == 2)


@pytest.fixture(scope="module")
def space():
    return Chain()


@pytest.fixture(scope="module")
def fitted(space):
    train = space.sample(60, np.random.default_rng(0))
    return EnsembleQualityPredictor(space, seed=0).fit(train, accuracy(train))


def test_ranks_unseen_architectures(space, fitted):
    queries = space.sample(1000, np.random.default_rng(1))
    mean, _ = fitted.predict(queries)
    ranks = [np.argsort(np.argsort(v)) for v in (mean, accuracy(queries))]
    assert np.corrcoef(*ranks)[0, 1] > 0.9


def test_the_interval_covers_as_often_as_it_says(space, fitted):
    queries = space.sample(1000, np.random.default_rng(2))
    mean, std = fitted.predict(queries)
    assert (std > 0).all()
    covered = (np.abs(accuracy(queries) - mean) <= 1.645 * std).mean()
    assert 0.75 < covered <= 1.0


def test_same_seed_same_answer_whatever_the_chunks(space, fitted):
    train = space.sample(60, np.random.default_rng(0))
    again = EnsembleQualityPredictor(space, seed=0).fit(train, accuracy(train))
    queries = space.sample(300, np.random.default_rng(3))
    mean, std = fitted.predict(queries)
    np.testing.assert_array_equal(again.predict(queries)[0], mean)
    parts = [fitted.predict(queries[i : i + 100]) for i in range(0, 300, 100)]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), mean, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), std, rtol=1e-3)


def test_equal_qualities_do_not_break_it(space):
    train = space.sample(10, np.random.default_rng(0))
    mean, std = EnsembleQualityPredictor(space).fit(train, np.full(10, 0.5)).predict(train)
    np.testing.assert_allclose(mean, 0.5, atol=1e-6)
    assert np.isfinite(std).all()


@pytest.mark.parametrize("quality", [[0.1, 0.2], [0.1] * 9, [0.1] * 9 + [np.nan]])
def test_bad_evaluations_are_refused(space, quality):
    train = space.sample(2 if len(quality) == 2 else 10, np.random.default_rng(0))
    with pytest.raises(PredictorError, match="quality"):
        EnsembleQualityPredictor(space).fit(train, np.array(quality))


def test_predict_before_fit_is_refused(space):
    with pytest.raises(PredictorError, match="fit"):
        EnsembleQualityPredictor(space).predict(space.sample(2, np.random.default_rng(0)))


def test_normal_scores_come_back():
    values = np.array([3.0, 1.0, 1.0, 7.0, 2.0, 9.0])
    scores = NormalScores(values)
    assert scores.forward[1] == scores.forward[2]
    mean, std = scores.inverse(scores.forward, np.full(6, 0.1))
    np.testing.assert_allclose(mean, values)
    assert (std > 0).all()
    assert scores.inverse(np.array([5.0]), np.array([0.1]))[0] > 9
