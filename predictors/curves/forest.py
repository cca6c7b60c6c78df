"""A random forest on curves.

Shapes: N trainings, F features.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import PredictorError
from .regressor import CurveRegressor, Fitted, FloatArray


class RandomForest(CurveRegressor):
    """Breiman's random forest; held-out predictions are out-of-bag.

    It never predicts beyond what it has seen: no training is expected to beat the best.

    Args:
        seed: Of the bootstrap and of the features tried.
        trees: Their number.
    """

    name: ClassVar[str] = "random_forest"

    def __init__(self, seed: int = 0, trees: int = 100) -> None:
        super().__init__(seed)
        if isinstance(trees, bool) or not isinstance(trees, int) or trees < 10:
            raise PredictorError("out of range", field="trees", value=trees, allowed="an integer from 10")
        self.trees = trees

    def settings(self) -> dict[str, Any]:
        """See :meth:`CurveRegressor.settings`."""
        return {**super().settings(), "trees": self.trees}

    def learn(self, features: FloatArray, targets: FloatArray) -> tuple[Fitted, FloatArray]:
        """See :meth:`CurveRegressor.learn`."""
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(
            self.trees, max_features=0.5, min_samples_leaf=2, bootstrap=True, random_state=self.seed, n_jobs=1
        ).fit(features, targets)
        total, count = np.zeros(len(targets)), np.zeros(len(targets))
        for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
            unseen = np.ones(len(targets), dtype=bool)
            unseen[drawn] = False
            if unseen.any():
                total[unseen] += tree.predict(features[unseen])
                count += unseen
        held_out = np.where(count > 0, total / np.maximum(count, 1), 0.0)
        return lambda rows: np.asarray(forest.predict(rows)), held_out
