"""Which evaluated architectures deserve full training, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .history import History, Trial
from .pareto import ranks
from .problem import Problem

FloatArray = npt.NDArray[np.float64]


def rank_again(problem: Problem, trials: Sequence[Trial]) -> list[Trial]:
    """``trials`` as a latency model sees them that has learnt more since: what it holds feasible by
    rank, then the rest, nearest to the limit first."""
    if not trials:
        return []
    rows = np.stack([t.genotype for t in trials])
    losses = problem.losses(rows, np.array([t.quality for t in trials]))
    violation = problem.violation(rows)
    judged = [
        replace(t, losses=tuple(loss), violation=float(v))
        for t, loss, v in zip(trials, losses.tolist(), violation, strict=True)
    ]
    return _ranked([t for t in judged if t.violation <= 0]) + sorted(
        (t for t in judged if t.violation > 0), key=lambda t: t.violation
    )


def rank(history: History) -> list[Trial]:
    """Feasible evaluated trials, best first.

    Front by front; within a front so that any prefix is spread over it: the best quality first,
    then always the one farthest from those already chosen, in losses scaled to the front's range.
    """
    return _ranked([t for t in history.evaluated if t.violation <= 0])


def _ranked(feasible: Sequence[Trial]) -> list[Trial]:
    if not feasible:
        return []
    losses = np.array([t.losses for t in feasible])
    quality = np.array([t.quality for t in feasible])
    order: list[Trial] = []
    rank_of = ranks(losses)
    for level in range(int(rank_of.max()) + 1):
        front = np.flatnonzero(rank_of == level)
        order += [feasible[i] for i in front[_spread(losses[front], quality[front])]]
    return order


def _spread(losses: FloatArray, quality: FloatArray) -> npt.NDArray[np.int64]:
    """Farthest-first order of the rows of ``losses`` ``(N, M)``, starting with the best quality."""
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    chosen = [int(np.argmax(quality))]
    distance = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < len(losses):
        distance[chosen] = -1.0
        farthest = int(np.argmax(distance))
        chosen.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[farthest], axis=1))
    return np.array(chosen, dtype=np.int64)
