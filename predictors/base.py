"""The contract of a latency predictor and its two lives: learn from many settings, then adapt to
a new one from a few measurements.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..search_spaces import Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]


class LatencyModel(ABC):
    """Latency of any architecture of one space in one setting."""

    @abstractmethod
    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation in ms, each ``(N,)``; the deviation includes measurement
        noise. Vectorised: the inner loop of a search asks for hundreds of thousands at once."""

    def predict_mean(self, genotypes: Genotypes) -> FloatArray:
        """The mean alone, where a model can give it faster."""
        return self.predict(genotypes)[0]


class LatencyPredictor(ABC):
    """Makes latency models for a space. Runs ``gnomon.testing.LatencyPredictorSuite``."""

    minimum: ClassVar[int] = 3
    """Fewest distinct measurements that :meth:`adapt` takes."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @abstractmethod
    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """The ``n`` distinct canonical architectures to measure on a new setting ``(n, D)``; the
        space's reference network first, if it names one.

        Args:
            n: How many.
            seed: Of the candidates.
            among: Rows to choose from, where not all can be measured (a recorded table).

        Raises:
            PredictorError: If the space holds fewer, or n is below what :meth:`adapt` needs.
        """

    @abstractmethod
    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> LatencyModel:
        """The model of one setting from its measurements: ``(N, D)`` and ``(N,)``. Deterministic.

        Raises:
            PredictorError: If there are too few, or latencies are not positive and finite.
        """
