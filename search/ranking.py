"""Which evaluated architectures deserve full training, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

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


@dataclass(frozen=True)
class Verified:
    """A trained and measured candidate, as the next choice sees it.

    Args:
        searched: Quality during the search.
        trained: Quality after full training, on validation.
        latency_ms: Measured.
    """

    searched: float
    trained: float
    latency_ms: float


def by_chance(problem: Problem, trials: Sequence[Trial], verified: Sequence[Verified]) -> list[Trial]:
    """Feasible ``trials``, the likeliest to join the verified front first; the rest as they were.

    Full training lifts poor candidates more than good ones, and dominance by a model that is
    already verified is final: so what counts is the chance that a candidate, once trained, beats
    every verified model that is no slower. Its trained quality is predicted from its searched one
    by a line through the verified, its latency by the latency model; faster than all is certain.
    """
    feasible = [t for t in trials if t.violation <= 0]
    if not feasible or len(verified) < 2:
        return list(trials)
    searched, trained, latency = (np.array(column) for column in zip(*map(astuple, verified), strict=True))
    slope = _slope(searched, trained)
    latency_ms = problem.latency.predict_mean(np.stack([t.genotype for t in feasible]))
    expected = trained.mean() + slope * (np.array([t.quality for t in feasible]) - searched.mean())
    no_slower = latency[None, :] <= latency_ms[:, None]
    to_beat = np.where(no_slower, trained, -np.inf).max(axis=1)
    # The spread about the line is the same for all, so the margin orders them as the chance does.
    order = np.argsort(to_beat - expected, kind="stable")
    return [feasible[i] for i in order] + [t for t in trials if t.violation > 0]


def _slope(searched: FloatArray, trained: FloatArray) -> float:
    """Slope, between 0 and 1, of trained against searched quality."""
    centred = searched - searched.mean()
    return float(np.clip(centred @ trained / max(float(centred @ centred), 1e-12), 0.0, 1.0))


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
