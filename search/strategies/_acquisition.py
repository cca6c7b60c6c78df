"""Expected hypervolume improvement under uncertain quality, a batch at a time.

Shapes: N evaluated trials, C candidates, W worlds, M losses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...predictors.quality import QualityPredictor
from ...search_spaces import Genotypes
from ..history import History
from ..pareto import improvement, non_dominated, reference_point
from ..problem import Problem

FloatArray = npt.NDArray[np.float64]

REFRESHED = 32
"""Candidates whose gain is computed anew at a time."""


class Acquisition:
    """Mean hypervolume improvement over worlds drawn from the quality predictor.

    In each world every candidate has one quality; the predictor draws them together, as it knows
    which candidates are good or bad alike. Within a batch each pick joins the front of every world,
    so that the next one looks elsewhere; pending trials do so from the beginning (sequential greedy
    batches of q-EHVI, Daulton, Balandat and Bakshy 2020, 2006.05078). Latency and other costs are
    taken at their mean: evaluating quality teaches nothing about them, and under independent draws
    the search would chase their noise at the fast end of the front.

    A latency limit holds with the objective's confidence, or it does not (``Problem.violation``,
    which knows the latency model's deviation). Candidates that break it count only by the
    probability that they are within it (constrained expected improvement, Gelbart, Snoek and Adams
    2014, 1403.5607), and come after all that hold it.
    """

    def __init__(
        self,
        problem: Problem,
        history: History,
        predictor: QualityPredictor,
        candidates: Genotypes,
        draws: int,
        rng: np.random.Generator,
    ) -> None:
        self._problem = problem
        self._draws = draws
        self._rng = rng
        trials = [t for t in history.evaluated if t.violation <= 0] or list(history.evaluated)
        known = np.array([t.losses for t in trials], dtype=np.float64)
        hopes = predictor.spread(candidates, np.array([[0.0], [1.0]]))
        expected = [problem.losses(candidates, quality) for quality in hopes]
        self._reference, self._scale = _box(known, *expected)
        self._fronts = [self._scaled(known[non_dominated(known)])] * draws
        pending = [t.genotype for t in history.trials if t.state == "pending"]
        waiting = np.stack(pending) if pending else candidates[:0]
        worlds = self._worlds(predictor, np.concatenate([waiting, candidates]))
        self._points = worlds[:, len(waiting) :]
        if pending:
            together = zip(self._fronts, worlds[:, : len(waiting)], strict=True)
            self._fronts = [np.vstack(parts) for parts in together]
        self._broken = problem.violation(candidates) > 0
        self._weights = np.where(self._broken, problem.feasibility(candidates), 1.0)

    def _scaled(self, losses: FloatArray) -> FloatArray:
        return (losses - self._reference) / self._scale

    def _worlds(self, predictor: QualityPredictor, genotypes: Genotypes) -> FloatArray:
        """Scaled losses ``(W, C, M)`` under drawn quality."""
        drawn = predictor.draw(genotypes, self._draws, self._rng)
        return np.stack([self._scaled(self._problem.losses(genotypes, quality)) for quality in drawn])

    def pick(self, n: int) -> npt.NDArray[np.int64]:
        """Positions of up to ``n`` candidates, best first, those that hold the limit before those that do not."""
        chosen = self._lazily(np.flatnonzero(~self._broken), n)
        chosen += self._lazily(np.flatnonzero(self._broken), n - len(chosen))
        return np.array(chosen, dtype=np.int64)

    def _lazily(self, among: npt.NDArray[np.int64], n: int) -> list[int]:
        """Up to ``n`` positions out of ``among``.

        Gains only fall as the fronts grow, so a stale gain is an upper bound, and only the
        candidates that lead are looked at again (lazy greedy, Minoux 1978).
        """
        if n <= 0 or not len(among):
            return []
        gain = self._gain(among)
        chosen: list[int] = []
        for _ in range(min(n, len(gain))):
            stale = np.ones(len(gain), dtype=bool) if chosen else np.zeros(len(gain), dtype=bool)
            stale[chosen] = False
            while stale[gain.argmax()]:
                leaders = np.argsort(np.where(stale, -gain, np.inf), kind="stable")[:REFRESHED]
                gain[leaders] = self._gain(among[leaders])
                stale[leaders] = False
            index = int(gain.argmax())
            chosen.append(index)
            gain[index] = -1.0
            row = among[index]
            self._fronts = [np.vstack([f, p[row]]) for f, p in zip(self._fronts, self._points, strict=True)]
        return [int(row) for row in among[chosen]]

    def _gain(self, index: npt.NDArray[np.int64]) -> FloatArray:
        origin = np.zeros(self._points.shape[2])
        gains = [
            improvement(points[index], front, origin) for points, front in zip(self._points, self._fronts, strict=True)
        ]
        return np.asarray(np.mean(gains, axis=0) * self._weights[index])


def _box(*losses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Reference point, and the range of each loss, so that a volume is not of one loss alone.

    Candidates are looked at too: where the front ends is for them to say, not for what happens to
    be evaluated already.
    """
    points = np.concatenate([part[non_dominated(part)] for part in losses])
    reference = np.max([reference_point(part) for part in losses], axis=0)
    return reference, np.maximum(reference - points.min(axis=0), 1e-12)
