from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors.quality_features import QualityFeatures
from gnomon.predictors.quality_mlp import ComparatorQuality, MLPQuality
from gnomon.predictors.quality_trees import BoostedTreesQuality
from gnomon.predictors.upper_gaussian_process import UpperGaussianProcess
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.testing.strategy_problems import ToyCells


@pytest.fixture(scope="module")
def space():
    return ToyCells(4)


@pytest.fixture(scope="module")
def rows(space):
    return np.random.default_rng(1).permutation(np.unique(space.sample(2000, np.random.default_rng(0)), axis=0))


def hashed(rows):
    """A quality that nothing about the architecture tells."""
    return ((rows.astype(np.int64) @ (7919 ** np.arange(rows.shape[1]) % 10007)) % 1009).astype(float)


def test_genes_graph_or_both():
    space = NASBench201()
    sample = space.sample(50, np.random.default_rng(0))
    widths = {seen: QualityFeatures(space, seen=seen)(sample).shape[1] for seen in ("genotype", "graph", "both")}
    assert widths == {"genotype": 30, "graph": 13, "both": 43}
    with pytest.raises(PredictorError, match="seen"):
        QualityFeatures(space, seen="name")


def test_columns_are_scaled_over_the_space(space):
    features = QualityFeatures(space)(space.sample(4000, np.random.default_rng(5)))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=0.15)


def test_extra_columns_are_ranks_whatever_their_scale(space, rows):
    raw = np.arange(20.0)
    scores = dict(zip(space.keys(rows[:20]), raw, strict=True))

    def extra(genotypes):
        value = np.array([scores.get(key, np.nan) for key in space.keys(genotypes)])
        return np.stack([value, np.exp(30 * value)], axis=1)

    features = QualityFeatures(space, seen="graph", extra=extra)
    columns = features.learn(rows[:20])
    assert features.leading == columns.shape[1] == 2
    np.testing.assert_allclose(columns[:, 0], columns[:, 1])
    assert (np.diff(columns[:, 0]) > 0).all()
    np.testing.assert_array_equal(features(rows[20:25]), np.full((5, 2), columns.min()))


def test_extra_columns_of_a_wrong_shape_are_refused(space, rows):
    with pytest.raises(PredictorError, match="extra"):
        UpperGaussianProcess(space, extra=lambda genotypes: np.ones(len(genotypes))).fit(rows[:10], np.arange(10.0))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (UpperGaussianProcess, {}),
        (BoostedTreesQuality, {"members": 4}),
        (MLPQuality, {"members": 4, "hidden": (32,)}),
        (ComparatorQuality, {"members": 4, "hidden": (32,), "pairs": 256}),
    ],
)
def test_a_telling_extra_column_is_used(space, rows, kind, settings):
    def extra(genotypes):
        return np.stack([np.exp(hashed(genotypes) / 50), np.zeros(len(genotypes))], axis=1)

    def correlation(predictor):
        mean, _ = predictor.fit(rows[:60], hashed(rows[:60])).predict(rows[100:600])
        return np.corrcoef(mean, hashed(rows[100:600]))[0, 1]

    assert correlation(kind(space, seen="graph", extra=extra, **settings)) > 0.9
    assert correlation(kind(space, **settings)) < 0.5


def test_a_comparator_says_which_is_better(space, rows):
    comparator = ComparatorQuality(space, members=4, hidden=(32,), steps=100).fit(rows[:80], space.quality(rows[:80]))
    first, second = rows[100:400], rows[400:700]
    chance = comparator.better(first, second)
    np.testing.assert_allclose(chance + comparator.better(second, first), 1.0, atol=1e-6)
    far = np.abs(space.quality(first) - space.quality(second)) > 5
    assert ((chance > 0.5) == (space.quality(first) > space.quality(second)))[far].mean() > 0.9
    wins = comparator.wins(rows[100:200], rows[:80])
    assert ((wins >= 0) & (wins <= 1)).all()
    assert np.corrcoef(wins, space.quality(rows[100:200]))[0, 1] > 0.8


@pytest.mark.parametrize("kind", [UpperGaussianProcess, MLPQuality])
def test_alike_architectures_are_drawn_together(space, rows, kind):
    predictor = kind(space).fit(rows[:20], space.quality(rows[:20]))
    base = rows[100:140]
    near = base.copy()
    near[:, 0] = (near[:, 0] + 1) % 2
    near = space.canonical(near)
    drawn = predictor.draw(np.concatenate([base, near]), 2000, np.random.default_rng(0))
    correlation = np.corrcoef(drawn.T)
    assert np.mean([correlation[i, 40 + i] for i in range(40)]) > 0.1 + np.mean(correlation[:40, 40:])


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda s: BoostedTreesQuality(s, members=6), "members"),
        (lambda s: BoostedTreesQuality(s, trees=0), "trees"),
        (lambda s: BoostedTreesQuality(s, learning_rate=0), "learning_rate"),
        (lambda s: MLPQuality(s, hidden=()), "hidden"),
        (lambda s: MLPQuality(s, steps=0), "steps"),
        (lambda s: MLPQuality(s, learning_rate=0), "learning_rate"),
        (lambda s: ComparatorQuality(s, pairs=0), "pairs"),
    ],
)
def test_settings_are_checked(space, make, field):
    with pytest.raises(PredictorError, match=field):
        make(space)
