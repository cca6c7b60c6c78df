"""Ridge regression on one-hot choices, without transfer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..search_spaces import SearchSpace
from .regression import RegressionPredictor, checked_strength
from .regressors import Regressor, fit_ridge

FloatArray = npt.NDArray[np.float64]


class RidgePredictor(RegressionPredictor):
    """Latency linear in which choice each decision takes, with a free constant.

    Args:
        space: Whose choices are the columns.
        ridge: Penalty on the squared weights, in units of the mean latency.
    """

    minimum = 3
    columns_kind = "choices"

    def __init__(self, space: SearchSpace, *, ridge: float = 1.0) -> None:
        super().__init__(space)
        self.ridge = checked_strength(ridge, "ridge")

    def fit_columns(self, features: FloatArray, targets: FloatArray) -> Regressor:
        """See :meth:`RegressionPredictor.fit_columns`."""
        return fit_ridge(features, targets, self.ridge)
