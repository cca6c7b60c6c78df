from __future__ import annotations

import itertools

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors.design import candidates, optimal_design
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro

NOISE = 0.01


def mean_variance(features, rows):
    chosen = features[list(rows)]
    covariance = np.linalg.inv(np.eye(features.shape[1]) + chosen.T @ chosen / NOISE)
    return np.einsum("ij,jk,ik->i", features, covariance, features).mean()


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(30, 4)) * [2, 1, 0.5, 0.1]


def test_each_step_is_the_best_one(features):
    rows = optimal_design(features, 5, noise_variance=NOISE).tolist()
    for step in range(5):
        others = [r for r in range(30) if r not in rows[:step]]
        best = min(others, key=lambda r: mean_variance(features, [*rows[:step], r]))
        assert rows[step] == best


def test_d_optimal_maximises_the_determinant(features):
    rows = optimal_design(features, 2, noise_variance=NOISE, criterion="d").tolist()

    def log_determinant(chosen):
        x = features[list(chosen)]
        return np.linalg.slogdet(np.eye(4) + x.T @ x / NOISE)[1]

    assert rows[0] == max(range(30), key=lambda r: log_determinant([r]))
    assert rows[1] == max((r for r in range(30) if r != rows[0]), key=lambda r: log_determinant([rows[0], r]))


def test_greedy_is_near_the_best_of_all_pairs(features):
    rows = optimal_design(features, 2, noise_variance=NOISE)
    best = min(mean_variance(features, pair) for pair in itertools.combinations(range(30), 2))
    assert mean_variance(features, rows) < 1.5 * best


def test_rows_given_come_first(features):
    rows = optimal_design(features, 5, noise_variance=NOISE, always=np.array([7, 3]))
    assert rows[:2].tolist() == [7, 3]
    assert len(set(rows.tolist())) == 5


def test_all_rows_can_be_chosen(features):
    assert sorted(optimal_design(features, 30, noise_variance=NOISE).tolist()) == list(range(30))


@pytest.mark.parametrize(("n", "criterion", "field"), [(31, "a", "n"), (3, "x", "criterion")])
def test_bad_arguments(features, n, criterion, field):
    with pytest.raises(PredictorError, match=field):
        optimal_design(features, n, noise_variance=NOISE, criterion=criterion)


def test_small_spaces_are_candidates_as_a_whole():
    space = NASBenchMacro()
    assert len(candidates(space, seed=0, n=10_000)) == 3**8


def test_the_cheapest_and_the_dearest_are_candidates():
    space = NASBench201()
    macs = space.costs(space.enumerate()).macs
    found = space.costs(candidates(space, seed=0, n=500)).macs
    assert found.max() == macs.max()
    assert found.min() == macs.min()
