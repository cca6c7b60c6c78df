"""Pareto arithmetic against brute force."""

import itertools

import numpy as np
import pytest

from gnomon.errors import StrategyError
from gnomon.search.pareto import best, crowding, hypervolume, improvement, non_dominated, ranks, reference_point


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def brute_front(losses):
    return np.array([not any(dominates(other, point) for other in losses) for point in losses])


def counted_volume(losses, reference):
    """Unit cells of an integer grid that some point dominates."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return sum(any((point <= cell).all() for point in losses) for cell in cells)


def grid(n, m, side, seed):
    return np.random.default_rng(seed).integers(0, side, size=(n, m)).astype(float)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [3, 50])
@pytest.mark.parametrize("seed", range(4))
def test_front_agrees_with_brute_force(m, side, seed):
    losses = grid(60, m, side, seed)
    assert np.array_equal(non_dominated(losses), brute_front(losses))


def test_copies_of_a_front_point_are_on_the_front():
    losses = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    assert non_dominated(losses).tolist() == [True, True, True, False]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_ranks_are_one_more_than_the_worst_dominator(m):
    losses = grid(50, m, 12, 1)
    rank = ranks(losses)
    for i, point in enumerate(losses):
        above = [rank[j] for j, other in enumerate(losses) if dominates(other, point)]
        assert rank[i] == (max(above) + 1 if above else 0)


def test_infeasible_points_come_last_by_violation():
    losses = np.array([[5.0, 5.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    rank = ranks(losses, np.array([-1.0, 0.3, 0.1, 0.3]))
    assert rank[0] < rank[2] < rank[1] == rank[3]


def test_ranking_stops_when_there_are_enough():
    losses = grid(200, 2, 1000, 3)
    full, part = ranks(losses), ranks(losses, enough=20)
    depth = part.max()
    assert (full <= part).sum() >= 20
    assert np.array_equal(np.minimum(full, depth), part)
    assert np.array_equal(np.sort(full[best(losses, None, 20)]), np.sort(full)[:20])


def test_crowding_by_hand():
    losses = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 2.0], [10.0, 0.0], [7.0, 7.0]])
    result = crowding(losses, np.array([0, 0, 0, 0, 1]))
    assert np.isinf(result[[0, 3, 4]]).all()
    assert result[1] == pytest.approx(4 / 10 + 8 / 10)
    assert result[2] == pytest.approx(9 / 10 + 6 / 10)


def test_crowding_of_equal_points_is_no_division_by_zero():
    assert not np.isnan(crowding(np.ones((5, 2)), np.zeros(5, dtype=np.int64))).any()


@pytest.mark.parametrize(("m", "side"), [(1, 9), (2, 9), (3, 6), (4, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_hypervolume_counts_cells(m, side, seed):
    losses = grid(12, m, side + 1, seed)
    reference = np.full(m, float(side))
    assert hypervolume(losses, reference) == pytest.approx(counted_volume(losses, reference))


def test_points_beyond_the_reference_count_nothing():
    losses = np.array([[0.0, 3.0], [3.0, 0.0], [2.0, 2.0]])
    assert hypervolume(losses, np.array([2.5, 2.5])) == pytest.approx(0.25)
    assert hypervolume(losses[:2], np.array([2.5, 2.5])) == 0.0
    assert hypervolume(np.zeros((0, 2)), np.array([1.0, 1.0])) == 0.0


def test_reference_of_another_dimension_is_refused():
    with pytest.raises(StrategyError, match="reference"):
        hypervolume(np.zeros((3, 2)), np.array([1.0]))


@pytest.mark.parametrize("m", [1, 2])
def test_improvement_is_the_difference_of_volumes(m):
    front, points, reference = grid(10, m, 40, 5), grid(30, m, 50, 6), np.full(m, 38.0)
    before = hypervolume(front, reference)
    expected = [hypervolume(np.vstack([front, point]), reference) - before for point in points]
    assert improvement(points, front, reference) == pytest.approx(expected)


def test_improvement_over_nothing_is_the_own_box():
    assert improvement(np.array([[1.0, 2.0]]), np.zeros((0, 2)), np.array([3.0, 5.0])) == pytest.approx([6.0])


def test_improvement_of_three_losses_estimates_the_volume():
    rng = np.random.default_rng(0)
    front, points, reference = rng.random((20, 3)), 0.5 * rng.random((20, 3)), np.ones(3)
    before = hypervolume(front, reference)
    exact = np.array([hypervolume(np.vstack([front, point]), reference) - before for point in points])
    estimate = improvement(points, front, reference, directions=20_000)
    assert estimate == pytest.approx(exact, abs=0.02)
    assert np.corrcoef(exact, improvement(points, front, reference))[0, 1] > 0.9


def test_reference_point_is_beyond_the_front_only():
    losses = np.array([[0.0, 10.0], [10.0, 0.0], [100.0, 100.0]])
    assert reference_point(losses) == pytest.approx([11.0, 11.0])
    assert reference_point(np.array([[3.0, 0.0]])) == pytest.approx([3.3, 0.0], abs=1e-9)
    with pytest.raises(StrategyError):
        reference_point(np.zeros((0, 2)))
