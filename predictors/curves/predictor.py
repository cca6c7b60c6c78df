"""The end of trainings from their beginnings, with its uncertainty: one regressor per observed length.

Shapes: N trainings that ended, n under way, T epochs of a whole training, t epochs seen, A attributes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError
from .features import curve_features
from .regressor import CurveRegressor, FloatArray
from .support_vectors import NuSupportVectors

MIN_STD = 1e-9


class CurvePredictor:
    """Sequential regression models of 1705.10823: for each number of epochs seen, a regressor of its own.

    The error is normal with the deviation of the *held-out* residuals (of trainings that the regressor did not
    see); those of the fit would promise too much. Regressors are fitted when they are first needed.

    Args:
        regressor: What is fitted at each length; None for :class:`NuSupportVectors`.
        best_possible: The metric's upper bound, for example 1.0 for an accuracy. Curves are then predicted as the
            logarithm of what is missing to it, in which the error of a good training and that of a bad one are
            alike; None predicts the metric itself.
    """

    def __init__(self, regressor: CurveRegressor | None = None, best_possible: float | None = None) -> None:
        self.regressor = regressor if regressor is not None else NuSupportVectors()
        self.best_possible = best_possible
        self._curves: FloatArray | None = None
        self._attributes: FloatArray
        self._floor = 0.0
        self._fitted: dict[int, tuple[CurveRegressor, float]] = {}

    def fit(self, curves: FloatArray, attributes: FloatArray | None = None) -> CurvePredictor:
        """Learns from whole trainings; larger is better.

        Args:
            curves: The metric after each epoch ``(N, T)``.
            attributes: Of each training ``(N, A)``: of its architecture and its hyper-parameters.

        Raises:
            PredictorError: If shapes differ, or a number is not finite or beyond ``best_possible``.
        """
        curves = np.asarray(curves, dtype=np.float64)
        if curves.ndim != 2 or not curves.shape[1]:
            raise PredictorError("not curves", field="curves", value=f"shape {curves.shape}", allowed="(N, T)")
        self._fitted, self._curves = {}, curves
        self._attributes = self._of(attributes, len(curves))
        self._check(curves)
        if self.best_possible is not None:
            missing = self.best_possible - curves
            # Half of the smallest step to perfection: an accuracy of 1.0 has a finite logarithm.
            self._floor = float(missing[missing > 0].min(initial=1.0)) / 2
        return self

    @property
    def epochs(self) -> int:
        """T.

        Raises:
            PredictorError: Before :meth:`fit`.
        """
        return int(self._known().shape[1])

    def predict(self, beginnings: FloatArray, attributes: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean (for ``best_possible`` the median) and deviation ``(n,)`` of the final metric.

        Args:
            beginnings: The first epochs ``(n, t)``, t from 1 to T - 1.
            attributes: ``(n, A)``.

        Raises:
            PredictorError: Before :meth:`fit`, or if shapes are others than there.
        """
        return self._in_metric(*self._scaled(beginnings, attributes))

    def predict_against(
        self, level: float, beginnings: FloatArray, attributes: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean and deviation as from :meth:`predict`, and P(final metric <= level): Phi((level - mean) / std),
        1705.10823, Section 4.2; ``(n,)`` each."""
        from scipy.special import ndtr

        mean, std = self._scaled(beginnings, attributes)
        return *self._in_metric(mean, std), np.asarray(ndtr((self._forward(np.array([level]))[0] - mean) / std))

    def _in_metric(self, mean: FloatArray, std: float) -> tuple[FloatArray, FloatArray]:
        if self.best_possible is None:
            return mean, np.full(len(mean), std)
        lower, upper = self._back(mean - std), self._back(mean + std)
        return self._back(mean), np.maximum((upper - lower) / 2, MIN_STD)

    def _scaled(self, beginnings: FloatArray, attributes: FloatArray | None) -> tuple[FloatArray, float]:
        """Mean ``(n,)`` and deviation in the scale of the regression."""
        beginnings = np.asarray(beginnings, dtype=np.float64)
        curves = self._known()
        if beginnings.ndim != 2 or not 1 <= beginnings.shape[1] < curves.shape[1]:
            raise PredictorError(
                "not beginnings of such curves",
                field="beginnings",
                value=f"shape {beginnings.shape}",
                allowed=f"(n, 1 to {curves.shape[1] - 1})",
            )
        self._check(beginnings)
        own = self._of(attributes, len(beginnings))
        if own.shape[1] != self._attributes.shape[1]:
            raise PredictorError(
                "other attributes than it was fitted to",
                field="attributes",
                value=own.shape[1],
                allowed=f"{self._attributes.shape[1]}",
            )
        regressor, std = self._at(beginnings.shape[1])
        return regressor.predict(np.concatenate([curve_features(self._forward(beginnings)), own], axis=1)), std

    def _at(self, length: int) -> tuple[CurveRegressor, float]:
        """The regressor of a length, and the deviation of its held-out residuals."""
        if length not in self._fitted:
            curves = self._forward(self._known())
            features = np.concatenate([curve_features(curves[:, :length]), self._attributes], axis=1)
            regressor = self.regressor.fresh().fit(features, curves[:, -1])
            residuals = curves[:, -1] - regressor.held_out
            self._fitted[length] = regressor, max(float(np.sqrt(np.square(residuals).mean())), MIN_STD)
        return self._fitted[length]

    def _forward(self, values: FloatArray) -> FloatArray:
        if self.best_possible is None:
            return values
        return np.asarray(-np.log(np.maximum(self.best_possible - values, 0.0) + self._floor))

    def _back(self, values: FloatArray) -> FloatArray:
        return np.asarray((self.best_possible or 0.0) - (np.exp(-values) - self._floor))

    def _known(self) -> FloatArray:
        if self._curves is None:
            raise PredictorError("the curve predictor knows no training yet", hint="Call fit first.")
        return self._curves

    def _of(self, attributes: FloatArray | None, n: int) -> FloatArray:
        if attributes is None:
            return np.zeros((n, 0))
        attributes = np.asarray(attributes, dtype=np.float64)
        if attributes.ndim != 2 or len(attributes) != n or not np.isfinite(attributes).all():
            raise PredictorError(
                "one row of finite numbers for each training is needed",
                field="attributes",
                value=f"shape {attributes.shape}",
                allowed=f"({n}, A)",
            )
        return attributes

    def _check(self, curves: npt.NDArray[np.float64]) -> None:
        if not np.isfinite(curves).all():
            raise PredictorError("not finite", field="curves", value="NaN or infinity", allowed="numbers")
        if self.best_possible is not None and curves.size and curves.max() > self.best_possible:
            raise PredictorError(
                "a curve goes beyond it", field="best_possible", value=self.best_possible, allowed=f">= {curves.max()}"
            )
