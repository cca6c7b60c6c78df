"""The contract of a regressor on curves: predictions, and what they are worth on trainings not seen.

Shapes: N trainings that ended, n under way, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError

FloatArray = npt.NDArray[np.float64]
Fitted = Callable[[FloatArray], FloatArray]
"""Standardised features ``(n, F)`` to standardised targets ``(n,)``."""

MIN_TRAININGS = 8
"""Fewer say nothing of how wrong a prediction is."""


class CurveRegressor(ABC):
    """From features of a training's beginning to its end. Runs ``gnomon.testing.CurveRegressorSuite``.

    Columns and targets are standardised here; a subclass fits numbers of mean 0 and deviation 1. Deterministic by
    seed, and no training's place in the data matters except to what is drawn at random.

    Args:
        seed: Of folds and of whatever a regressor draws.
    """

    name: ClassVar[str]

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._fitted: Fitted | None = None
        self._held_out: FloatArray
        self._offset: FloatArray
        self._scale: FloatArray
        self._mean, self._deviation = 0.0, 1.0

    @abstractmethod
    def learn(self, features: FloatArray, targets: FloatArray) -> tuple[Fitted, FloatArray]:
        """The fitted function, and for each training ``(N,)`` what a function says of it that was fitted without it
        (leave-one-out, out-of-bag or cross-validation)."""

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON."""
        return {"regressor": self.name, "seed": self.seed}

    def fresh(self) -> Self:
        """Another one with the same settings that was fitted to nothing."""
        return type(self)(**{name: value for name, value in self.settings().items() if name != "regressor"})

    def fit(self, features: FloatArray, targets: FloatArray) -> Self:
        """Learns from trainings that ran to their end.

        Args:
            features: ``(N, F)``, N at least 8.
            targets: Final values ``(N,)``.

        Raises:
            PredictorError: If there are too few, shapes differ, or a number is not finite.
        """
        features, targets = _checked(features, targets)
        self._offset, deviation = features.mean(axis=0), features.std(axis=0)
        # A column that never varied says nothing, also where it varies later.
        self._scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12)
        self._mean, self._deviation = float(targets.mean()), float(targets.std()) or 1.0
        fitted, held_out = self.learn((features - self._offset) * self._scale, (targets - self._mean) / self._deviation)
        self._held_out = held_out * self._deviation + self._mean
        self._fitted = fitted
        return self

    def predict(self, features: FloatArray) -> FloatArray:
        """Expected final values ``(n,)`` of ``(n, F)``.

        Raises:
            PredictorError: Before :meth:`fit`, or if the columns are not those of the fit.
        """
        fitted = self._ready()
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != len(self._scale):
            raise PredictorError(
                "other features than it was fitted to",
                field="features",
                value=f"shape {features.shape}",
                allowed=f"(n, {len(self._scale)})",
            )
        if not len(features):
            return np.zeros(0)
        return np.asarray(fitted((features - self._offset) * self._scale) * self._deviation + self._mean)

    @property
    def held_out(self) -> FloatArray:
        """What was predicted for each training of the fit ``(N,)`` without it.

        Raises:
            PredictorError: Before :meth:`fit`.
        """
        self._ready()
        return self._held_out

    def _ready(self) -> Fitted:
        if self._fitted is None:
            raise PredictorError("the regressor knows no training yet", hint="Call fit first.")
        return self._fitted


def folds(n: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """A fold from 0 to ``count`` - 1 for each of ``n`` trainings, as even as can be."""
    return np.asarray(np.random.default_rng(seed).permutation(np.arange(n) % count), dtype=np.int64)


def _checked(features: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
    features, targets = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if features.ndim != 2 or targets.shape != features.shape[:1]:
        raise PredictorError(
            "as many rows of features as final values are needed",
            field="targets",
            value=f"shapes {features.shape} and {targets.shape}",
            allowed="(N, F) and (N,)",
        )
    if len(targets) < MIN_TRAININGS:
        raise PredictorError(
            "too few trainings that ended", field="targets", value=len(targets), allowed=f"at least {MIN_TRAININGS}"
        )
    if not (np.isfinite(features).all() and np.isfinite(targets).all()):
        raise PredictorError("not finite", field="features or targets", value="NaN or infinity", allowed="numbers")
    return features, targets
