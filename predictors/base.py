"""The contract of a latency predictor and its two lives: learn from many settings, then adapt to
a new one from a few measurements.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..records.pool import DevicePool
from ..search_spaces import Genotypes, SearchSpace
from .feature_learner import FeatureLearner

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

    learns: ClassVar[bool] = False
    """Whether :meth:`fit` learns anything; a predictor that does not needs no pool."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """Names of the settings that it starts from; empty if it learnt from none."""
        return ()

    def fit(self, pool: DevicePool, *, seed: int = 0) -> None:
        """The first life: learns from many settings of the space. Deterministic by seed; replaces
        what was learnt before.

        Raises:
            PredictorError: If the predictor learns from no pool, or the pool is of another space.
        """
        raise PredictorError(
            "learns from the target's measurements only", field="predictor", value=type(self).__name__, hint="No pool."
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What :meth:`fit` learnt, as numeric arrays by name; empty where it learns nothing."""
        return {}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes back what :meth:`state` gave: the predictor then says the same to the last bit.

        Raises:
            PredictorError: If the arrays do not fit.
        """
        if arrays:
            raise PredictorError("wrong arrays", field="arrays", value=sorted(arrays), allowed="none")

    def on_features(self, features: FloatArray, names: Sequence[str]) -> FeatureLearner:
        """This predictor on a table that lists features in place of architectures.

        Args:
            features: Of every row ``(N, F)``; their latencies stay unknown.
            names: Of the features ``(F,)``.

        Raises:
            PredictorError: If it needs architectures.
        """
        raise PredictorError(
            "needs architectures, and these data list features only", field="predictor", value=type(self).__name__
        )

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
