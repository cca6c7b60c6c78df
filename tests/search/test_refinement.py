"""Learning where the search looks: refinement measurements, and ranking again after verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gnomon.search import Problem, Trial
from gnomon.search.calibrate import refinement_rows
from gnomon.search.ranking import Verified, by_chance, rank_again


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


def trials_of(qualities: Sequence[float]) -> list[Trial]:
    """Of rows that take 13, 2, 10 and 3 ms."""
    rows = np.array([[2, 2, 2, 2, 2, 2], [0, 0, 0, 0, 1, 0], [2, 2, 2, 1, 1, 1], [1, 1, 0, 0, 0, 0]], dtype=np.int8)
    return [
        Trial(i, row, "complete", quality=quality, losses=(0.0, 0.0), violation=-1.0)
        for i, (row, quality) in enumerate(zip(rows, qualities, strict=True))
    ]


def test_the_likeliest_to_join_the_front_comes_first(problem: Problem) -> None:
    trials = trials_of((0.95, 0.90, 0.97, 0.93))
    verified = [Verified(0.94, 0.98, 2.5), Verified(0.90, 0.96, 4.0)]
    # 2 ms is faster than all that is verified: certain to join, whatever its quality. The others
    # have the same model to beat, so the better comes first.
    assert [t.number for t in by_chance(problem, trials, verified)] == [1, 2, 0, 3]


def test_a_gap_in_the_front_comes_before_a_better_but_slower_network(problem: Problem) -> None:
    trials = trials_of((0.951, 0.90, 0.95, 0.93))
    verified = [Verified(0.94, 0.98, 1.0), Verified(0.96, 0.99, 11.0)]
    # At 13 ms there is 0.99 to beat, at 10 ms only 0.98.
    assert next(t.number for t in by_chance(problem, trials, verified)) == 2


def test_what_breaks_the_limit_stays_behind(problem: Problem) -> None:
    trials = [replace(t, violation=1.0 if t.number == 1 else -1.0) for t in trials_of((0.95, 0.90, 0.97, 0.93))]
    verified = [Verified(0.94, 0.98, 2.5), Verified(0.90, 0.96, 4.0)]
    assert [t.number for t in by_chance(problem, trials, verified)][-1] == 1


def test_with_too_little_to_learn_from_the_order_stays(problem: Problem) -> None:
    trials = trials_of((0.95, 0.90, 0.97, 0.93))
    assert by_chance(problem, trials, [Verified(0.94, 0.98, 2.5)]) == trials
