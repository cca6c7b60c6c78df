"""Least squares on curves, in closed form.

Shapes: N trainings, F features.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .regressor import CurveRegressor, Fitted, FloatArray

STRENGTHS = np.logspace(-4, 3, 15)


class LeastSquares(CurveRegressor):
    """Ridge regression whose strength has the least leave-one-out error.

    The paper has ordinary least squares; differences are sums of values and choices sum to one, so that without a
    little shrinkage the solution is not unique.
    """

    name: ClassVar[str] = "least_squares"

    def learn(self, features: FloatArray, targets: FloatArray) -> tuple[Fitted, FloatArray]:
        """See :meth:`CurveRegressor.learn`. Leave-one-out is exact: residual / (1 - leverage)."""
        left, singular, right = np.linalg.svd(features, full_matrices=False)
        rotated = left.T @ targets
        best, weights, held_out = np.inf, np.zeros(features.shape[1]), np.zeros(len(targets))
        for strength in STRENGTHS:
            shrinkage = np.square(singular) / (np.square(singular) + strength)
            # The mean is one more column, of leverage 1 / N.
            leverage = np.square(left) @ shrinkage + 1.0 / len(targets)
            residual = (targets - left @ (shrinkage * rotated)) / np.maximum(1.0 - leverage, 1e-6)
            error = float(np.square(residual).mean())
            if error < best:
                best, held_out = error, targets - residual
                weights = right.T @ (singular / (np.square(singular) + strength) * rotated)
        return lambda rows: np.asarray(rows @ weights), held_out
