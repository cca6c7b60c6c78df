"""Learning where the search looks: refinement measurements, and ranking again after verification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gnomon.search import Problem, Trial
from gnomon.search.calibrate import refinement_rows
from gnomon.search.ranking import rank_again


def test_refinements_are_promising_unseen_and_spread(problem: Problem) -> None:
    first = refinement_rows(problem, [], 3, seed=0)
    assert len(np.unique(first, axis=0)) == 3
    assert (problem.violation(first) <= 0).all()
    assert first[0].sum() == 0, "the fastest comes first"
    assert np.ptp(problem.latency.predict_mean(first)) > 1, "spread over predicted latency"
    known = problem.space.keys(first)
    second = refinement_rows(problem, known, 3, seed=3)
    assert len(second) == 3
    assert not set(known) & set(problem.space.keys(second))


def test_without_feasible_rows_the_nearest_are_measured(problem: Problem) -> None:
    rows = refinement_rows(replace(problem, limit_ms=0.5), [], 4, seed=0)
    assert len(rows) == 4
    assert problem.latency.predict_mean(rows).max() <= 3.0


def test_refinement_is_deterministic(problem: Problem) -> None:
    np.testing.assert_array_equal(refinement_rows(problem, [], 5, 1), refinement_rows(problem, [], 5, 1))


def test_ranking_again_puts_the_feasible_first_then_the_nearest(problem: Problem) -> None:
    rows = problem.space.canonical(
        np.array([[2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 1, 0], [2, 2, 2, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
    )
    trials = [
        Trial(i, row, "complete", quality=0.5 + 0.1 * row.sum(), losses=(0.0, 0.0), violation=-1.0)
        for i, row in enumerate(rows.astype(np.int8))
    ]
    ranked = rank_again(problem, trials)  # the limit is 8 ms; the rows take 13, 2, 10 and 3 ms
    assert [t.number for t in ranked] == [3, 1, 2, 0]
    assert ranked[0].losses is not None
    assert ranked[0].losses[1] == 3.0
    assert ranked[2].violation > 0
    assert rank_again(problem, []) == []
