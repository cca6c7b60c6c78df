"""Expected hypervolume improvement under uncertain quality and uncertain latency.

Shapes: N evaluated trials, P pending trials, C candidates, W worlds, M losses.
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


class Acquisition:
    """Mean hypervolume improvement over worlds drawn from the predictors.

    In each world every architecture has one latency and every candidate one quality, drawn from
    the predictors' marginals; the evaluated trials keep their quality. A candidate's improvement
    over the front of its world is averaged, so that a network slightly behind the front counts
    for as much as the latency model is unsure (noisy expected hypervolume improvement, Daulton,
    Balandat and Bakshy 2021, 2105.08195, with independent marginals). Within a batch, each pick
    joins the front of every world, so that the next one looks elsewhere; pending trials do so too.
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
        feasible = [t for t in history.evaluated if t.violation <= 0] or list(history.evaluated)
        rows = np.stack([t.genotype for t in feasible])
        quality = np.array([t.quality for t in feasible], dtype=np.float64)
        self._points = self._worlds(candidates, self._drawn(predictor, candidates))
        self._fronts = [w[non_dominated(w)] for w in self._worlds(rows, np.broadcast_to(quality, (draws, len(rows))))]
        pending = [t.genotype for t in history.trials if t.state == "pending"]
        if pending:
            waiting = self._worlds(np.stack(pending), self._drawn(predictor, np.stack(pending)))
            self._fronts = [np.vstack(parts) for parts in zip(self._fronts, waiting, strict=True)]
        hopes = predictor.spread(candidates, np.array([[0.0], [1.0]]))
        self._reference, self._scale = _box(
            problem.losses(rows, quality), *(problem.losses(candidates, q) for q in hopes)
        )

    def _drawn(self, predictor: QualityPredictor, genotypes: Genotypes) -> FloatArray:
        """Quality in each world ``(W, C)``."""
        return predictor.spread(genotypes, self._rng.standard_normal((self._draws, len(genotypes))))

    def _worlds(self, genotypes: Genotypes, quality: FloatArray) -> FloatArray:
        """Losses ``(W, C, M)`` under drawn quality ``(W, C)`` and drawn latency."""
        columns = self._problem.metrics(genotypes, quality[0])
        latency = np.broadcast_to(columns.get("latency_ms", quality[0]), quality.shape)
        if "latency_ms" in columns:
            mean_ms, std_ms = self._problem.latency.predict(genotypes)
            # A latency is positive, however wide its interval.
            latency = np.maximum(mean_ms + std_ms * self._rng.standard_normal(quality.shape), 1e-3 * np.abs(mean_ms))
        return np.stack([self._losses(columns, q, ms) for q, ms in zip(quality, latency, strict=True)])

    def _losses(self, columns: dict[str, FloatArray], quality: FloatArray, latency_ms: FloatArray) -> FloatArray:
        drawn = {"quality": quality, "latency_ms": latency_ms}
        return self._problem.objective.losses(
            {name: drawn.get(name, column) for name, column in columns.items()}, self._problem.limit_ms
        )

    def pick(self, n: int) -> npt.NDArray[np.int64]:
        """Positions of up to ``n`` candidates, best first."""
        chosen: list[int] = []
        free = np.ones(self._points.shape[1], dtype=bool)
        for _ in range(min(n, len(free))):
            gain = np.mean([self._gain(world) for world in range(self._draws)], axis=0)
            gain[~free] = -1.0
            index = int(gain.argmax())
            chosen.append(index)
            free[index] = False
            self._fronts = [np.vstack([f, p[index]]) for f, p in zip(self._fronts, self._points, strict=True)]
        return np.array(chosen, dtype=np.int64)

    def _gain(self, world: int) -> FloatArray:
        return improvement(
            self._points[world] / self._scale, self._fronts[world] / self._scale, self._reference / self._scale
        )


def _box(*losses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Reference point, and the range of each loss, so that a volume is not of one loss alone.

    Candidates are looked at too: where the front ends is for them to say, not for what happens to
    be evaluated already.
    """
    points = np.concatenate([part[non_dominated(part)] for part in losses])
    reference = np.max([reference_point(part) for part in losses], axis=0)
    return reference, np.maximum(reference - points.min(axis=0), 1e-12)
