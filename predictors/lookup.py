"""An operator look-up table fitted to whole networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import SearchSpace
from .regression import RegressionPredictor, checked_strength
from .regressors import Regressor, fit_positive_line

FloatArray = npt.NDArray[np.float64]

TABLES = {"operations": "operations", "places": "choices"}


class LookupPredictor(RegressionPredictor):
    """Latency as a constant plus one entry for each operation that an architecture uses.

    Layer-wise tables time each operation alone and add up; the entries here are those that best
    explain measured networks (non-negative, least squared relative error with a ridge), so that
    what is measured is the same as for every other predictor.

    Args:
        space: Whose choices are the operations.
        table: ``operations``: one entry a choice, wherever the same choices are offered;
            ``places``: one a choice and decision, which takes many measurements to fill.
        ridge: Penalty on the squared entries, in units of the mean latency.
    """

    minimum = 3

    def __init__(self, space: SearchSpace, *, table: str = "operations", ridge: float = 0.01) -> None:
        super().__init__(space)
        if table not in TABLES:
            raise PredictorError("no such table", field="table", value=table, allowed=sorted(TABLES))
        self.table = table
        self.ridge = checked_strength(ridge, "ridge")

    @property
    def kind(self) -> str:
        """The columns of the table."""
        return TABLES[self.table]

    def fit_columns(self, features: FloatArray, targets: FloatArray) -> Regressor:
        """See :meth:`RegressionPredictor.fit_columns`."""
        return fit_positive_line(features, targets, self.ridge)
