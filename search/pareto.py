"""Pareto arithmetic on losses: dominance, ranks, crowding, hypervolume.

Shapes: N points, M losses, all to be minimised; F points of a front. A violation ``(N,)`` of at
most 0 is feasible.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..errors import StrategyError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def non_dominated(losses: FloatArray) -> BoolArray:
    """Which points no other point dominates ``(N,)``; equal points do not dominate each other."""
    n, m = losses.shape
    if n == 0:
        return np.zeros(0, dtype=bool)
    if m == 1:
        return np.asarray(losses[:, 0] == losses[:, 0].min())
    order = np.lexsort(losses.T[::-1])
    front = _sweep(losses[order]) if m == 2 else _cull(losses[order])
    result = np.zeros(n, dtype=bool)
    result[order[front]] = True
    return result


def _sweep(ordered: FloatArray) -> BoolArray:
    """Two losses in lexicographic order: the second must fall below all before it."""
    lowest = np.minimum.accumulate(ordered[:, 1])
    result = np.ones(len(ordered), dtype=bool)
    result[1:] = ordered[1:, 1] < lowest[:-1]
    # A copy of a point of the front follows it directly and belongs to the front as well.
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.asarray(result[first][np.cumsum(first) - 1])


def _cull(ordered: FloatArray) -> BoolArray:
    """Any number of losses in lexicographic order: each point can only dominate later ones."""
    result = np.zeros(len(ordered), dtype=bool)
    left = np.arange(len(ordered))
    while len(left):
        head = ordered[left[0]]
        equal = (ordered[left] == head).all(axis=1)
        result[left[equal]] = True
        left = left[(ordered[left] < head).any(axis=1)]
    return result


def ranks(losses: FloatArray, violation: FloatArray | None = None, *, enough: int | None = None) -> IntArray:
    """Constrained non-domination rank ``(N,)``, 0 for the front (Deb et al. 2002, NSGA-II).

    Feasible points are peeled front by front; infeasible ones come after all of them, by violation.

    Args:
        losses: ``(N, M)``.
        violation: ``(N,)``; None where there is no constraint.
        enough: Stop peeling once so many points are ranked; the rest share the next rank.
    """
    n = len(losses)
    result = np.zeros(n, dtype=np.int64)
    feasible = np.ones(n, dtype=bool) if violation is None else violation <= 0
    left = np.flatnonzero(feasible)
    rank, ranked = 0, 0
    while len(left) and (enough is None or ranked < enough):
        front = non_dominated(losses[left])
        result[left[front]] = rank
        ranked += int(front.sum())
        left = left[~front]
        rank += 1
    result[left] = rank
    if violation is not None and not feasible.all():
        _, order = np.unique(violation[~feasible], return_inverse=True)
        result[~feasible] = rank + 1 + order
    return result


def crowding(losses: FloatArray, rank: IntArray) -> FloatArray:
    """Crowding distance of each point within its own rank ``(N,)``; infinite at the ends."""
    n, m = losses.shape
    result = np.zeros(n)
    if n == 0:
        return result
    for k in range(m):
        order = np.lexsort((losses[:, k], rank))
        value, group = losses[order, k], rank[order]
        first = np.ones(n, dtype=bool)
        first[1:] = group[1:] != group[:-1]
        last = np.roll(first, -1)
        number = np.cumsum(first) - 1
        span = (value[last] - value[first])[number]
        gap = np.roll(value, -1) - np.roll(value, 1)
        share = np.divide(gap, span, out=np.zeros(n), where=span > 0)
        result[order] += np.where(first | last, np.inf, share)
    return result


def best(losses: FloatArray, violation: FloatArray | None, n: int) -> IntArray:
    """Positions of the ``n`` best points, by constrained rank, then by crowding distance."""
    rank = ranks(losses, violation, enough=n)
    return np.lexsort((-crowding(losses, rank), rank))[:n]


def reference_point(losses: FloatArray, margin: float = 0.1) -> FloatArray:
    """Nadir of the non-dominated points plus ``margin`` of their range ``(M,)``."""
    if not len(losses):
        raise StrategyError("no points to take a reference point from", field="losses", value=losses.shape)
    front = losses[non_dominated(losses)]
    nadir, ideal = front.max(axis=0), front.min(axis=0)
    span = np.where(nadir > ideal, nadir - ideal, np.maximum(np.abs(nadir), 1e-12))
    return np.asarray(nadir + margin * span)


def hypervolume(losses: FloatArray, reference: FloatArray) -> float:
    """Volume that the points dominate below ``reference`` ``(M,)``; points beyond it count nothing.

    Exact: a sweep for two losses; for more, exclusive volumes after While, Bradstreet and Barone
    (2012, WFG), exponential in M at worst.

    Raises:
        StrategyError: If the shapes disagree.
    """
    reference = np.asarray(reference, dtype=np.float64)
    if losses.ndim != 2 or reference.shape != losses.shape[1:]:
        raise StrategyError(
            "not a point in the space of the losses",
            field="reference",
            value=reference.shape,
            allowed=str(losses.shape[1:]),
        )
    inside = losses[(losses < reference).all(axis=1)]
    return _volume(inside[non_dominated(inside)], reference)


def _volume(front: FloatArray, reference: FloatArray) -> float:
    if not len(front):
        return 0.0
    if front.shape[1] == 1:
        return float(reference[0] - front.min())
    front = front[np.lexsort(front.T[::-1])]
    if front.shape[1] == 2:
        right = np.append(front[1:, 0], reference[0])
        return float(np.sum((right - front[:, 0]) * (reference[1] - front[:, 1])))
    total = 0.0
    # Each point adds its box less what later points cover of it.
    for i, point in enumerate(front):
        limited = np.maximum(front[i + 1 :], point)
        total += float(np.prod(reference - point)) - _volume(limited[non_dominated(limited)], reference)
    return total


def improvement(points: FloatArray, front: FloatArray, reference: FloatArray, *, directions: int = 128) -> FloatArray:
    """Hypervolume that each point alone would add to ``front`` ``(N,)``.

    Exact for up to two losses. For more, the mean over ``directions`` fixed random directions of
    the hypervolume scalarisation (Zhang and Golovin 2020, 2006.04655, lemma 5), which estimates it
    without bias and vectorises over points.

    Args:
        points: ``(N, M)``.
        front: ``(F, M)``, dominated points allowed.
        reference: ``(M,)``.
        directions: For three losses and more.
    """
    m = points.shape[1]
    front = front[(front < reference).all(axis=1)]
    front = front[non_dominated(front)]
    if m == 1:
        return np.asarray(np.maximum(np.append(front[:, 0], reference[0]).min() - points[:, 0], 0.0))
    if m == 2:
        return _improvement_2d(points, front, reference)
    normals = np.abs(np.random.default_rng(0).standard_normal((directions, m)))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    covered = _scalarised(front, reference, normals).max(axis=0, initial=0.0)
    gain = np.maximum(_scalarised(points, reference, normals) - covered, 0.0).mean(axis=1)
    return np.asarray(gain * np.pi ** (m / 2) / (2**m * math.gamma(m / 2 + 1)))


def _scalarised(points: FloatArray, reference: FloatArray, normals: FloatArray) -> FloatArray:
    """``(N, K)``: the M-th power of the length to each point's box along K directions."""
    gap = np.maximum(reference - points, 0.0)
    length = np.full((len(points), len(normals)), np.inf)
    for k in range(points.shape[1]):
        np.minimum(length, gap[:, k : k + 1] / normals[:, k], out=length)
    return np.asarray(length ** points.shape[1])


def _improvement_2d(points: FloatArray, front: FloatArray, reference: FloatArray) -> FloatArray:
    """The front as a staircase of columns, of each of which a point covers a part."""
    front = front[np.lexsort(front.T[::-1])]
    left = np.concatenate([[-np.inf], front[:, 0]])
    right = np.append(front[:, 0], reference[0])
    height = np.concatenate([[reference[1]], front[:, 1]])
    width = right - np.maximum(points[:, :1], left)
    gain = height - points[:, 1:]
    return np.asarray((np.maximum(width, 0.0) * np.maximum(gain, 0.0)).sum(axis=1))
