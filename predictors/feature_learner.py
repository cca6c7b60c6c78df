"""The two lives of a predictor on tables that list features in place of architectures (HAT, YOLOBench).

Shapes: N rows, F features, S settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from .design import optimal_design

FloatArray = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int64]


class FeatureModel(Protocol):
    """Latency from features."""

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation in ms, each ``(N,)``, of features ``(N, F)``."""
        ...


class FeatureLearner(ABC):
    """The two lives of a predictor, with features ``(N, F)`` in place of genotypes; what
    :meth:`LatencyPredictor.on_features` gives."""

    minimum: ClassVar[int] = 3
    learns: ClassVar[bool] = False

    def fit(self, features: FloatArray, latencies_ms: FloatArray, settings: Sequence[str], *, seed: int) -> None:
        """The first life, where there is one: latencies ``(N, S)``, NaN where not measured."""
        del features, latencies_ms, settings, seed

    @abstractmethod
    def design(self, features: FloatArray) -> tuple[FloatArray, float | FloatArray]:
        """Prior-scaled features ``(N, R)`` and the noise variance of a measurement, for an optimal design."""

    @abstractmethod
    def adapt(self, features: FloatArray, latencies_ms: FloatArray) -> FeatureModel:
        """The second life: from measurements ``(N, F)``, ``(N,)``."""

    def references(self, features: FloatArray, n: int) -> Rows:
        """Which ``n`` of the rows to measure: A-optimal ones.

        Raises:
            PredictorError: If there are fewer, or n is below what :meth:`adapt` needs.
        """
        if not self.minimum <= n <= len(features):
            raise PredictorError(
                "cannot choose that many rows to measure",
                field="n",
                value=n,
                allowed=f"{self.minimum} to {len(features)}",
            )
        scaled, noise = self.design(features)
        return optimal_design(scaled, n, noise_variance=noise)
