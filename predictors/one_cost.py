"""A line through one cost: what parameters, MACs or memory traffic alone say about latency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import SearchSpace
from .regression import RegressionPredictor
from .regressors import Regressor, fit_positive_line

FloatArray = npt.NDArray[np.float64]

COSTS = ("parameters", "macs", "cio")


class OneCostPredictor(RegressionPredictor):
    """``latency = a + b * cost`` with least squared relative error, a and b not negative.

    Its ranks are those of the cost, whatever is measured.

    Args:
        space: Gives ``costs``.
        cost: ``parameters``, ``macs`` or ``cio`` (what convolutions read and write, HarDNet 1909.00948).
    """

    minimum = 3

    def __init__(self, space: SearchSpace, *, cost: str = "macs") -> None:
        super().__init__(space)
        if cost not in COSTS:
            raise PredictorError("no such cost", field="cost", value=cost, allowed=COSTS)
        self.cost = cost

    @property
    def kind(self) -> str:
        """The cost."""
        return self.cost

    def fit_columns(self, features: FloatArray, targets: FloatArray) -> Regressor:
        """See :meth:`RegressionPredictor.fit_columns`."""
        return fit_positive_line(features, targets)
