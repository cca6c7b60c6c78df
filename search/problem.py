"""What a strategy is asked to solve: space, objective, latency model and limit, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..predictors import LatencyModel
from ..search_spaces import Genotypes, SearchSpace
from .objective import Objective

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """The fixed part of a search, once the latency model is adapted and the limit resolved."""

    space: SearchSpace
    objective: Objective
    latency: LatencyModel
    limit_ms: float | None = None

    def metrics(self, genotypes: Genotypes, quality: FloatArray) -> dict[str, FloatArray]:
        """Columns ``(N,)`` of every metric the objective names; latency is the predicted mean."""
        columns: dict[str, FloatArray] = {"quality": quality}
        names = set(self.objective.metrics)
        if "latency_ms" in names:
            columns["latency_ms"] = self.latency.predict_mean(genotypes)
        if names - {"quality", "latency_ms"}:
            columns.update(self.space.costs(genotypes).columns())
        return {name: columns[name] for name in self.objective.metrics}

    def losses(self, genotypes: Genotypes, quality: FloatArray) -> FloatArray:
        """Objective values to be minimised ``(N, M)`` under a given or predicted quality."""
        return self.objective.losses(self.metrics(genotypes, quality), self.limit_ms)

    def violation(self, genotypes: Genotypes) -> FloatArray:
        """At most 0 where the latency limit holds with the stated confidence ``(N,)``."""
        if self.limit_ms is None:
            return np.zeros(len(genotypes))
        mean, std = self.latency.predict(genotypes)
        return self.objective.violation(mean, std, self.limit_ms)

    def feasibility(self, genotypes: Genotypes) -> FloatArray:
        """Probability that the latency limit holds ``(N,)``, of the predictive distribution that
        :meth:`violation` reads: it is at least the objective's confidence where that is at most 0."""
        if self.limit_ms is None:
            return np.ones(len(genotypes))
        mean, std = self.latency.predict(genotypes)
        return self.objective.feasibility(mean, std, self.limit_ms)
