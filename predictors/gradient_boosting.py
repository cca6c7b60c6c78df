"""Gradient-boosted trees on the space's features, without transfer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..search_spaces import SearchSpace
from .boosted_trees import fit_boosted_trees
from .regression import RegressionPredictor, checked_count, checked_strength
from .regressors import Regressor

FloatArray = npt.NDArray[np.float64]


class GradientBoostingPredictor(RegressionPredictor):
    """Least-squares boosting of regression trees.

    With ten measurements a tree has few ways to split, so this shows what such a model is worth
    there; with thousands it is the practical ceiling. No prediction leaves the range of what was
    measured.

    Args:
        space: Gives the features.
        trees: How many.
        depth: Of each tree, at most.
        learning_rate: Share of each tree's correction that is kept.
    """

    minimum = 3

    def __init__(self, space: SearchSpace, *, trees: int = 100, depth: int = 4, learning_rate: float = 0.1) -> None:
        super().__init__(space)
        self.trees = checked_count(trees, "trees")
        self.depth = checked_count(depth, "depth")
        self.learning_rate = checked_strength(learning_rate, "learning_rate")

    def fit_columns(self, features: FloatArray, targets: FloatArray) -> Regressor:
        """See :meth:`RegressionPredictor.fit_columns`."""
        return fit_boosted_trees(
            features, targets, trees=self.trees, depth=self.depth, learning_rate=self.learning_rate
        )
