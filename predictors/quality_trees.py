"""Quality by gradient-boosted trees, an ensemble with calibrated deviations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import PredictorError
from .boosted_trees import fit_boosted_trees
from .held_out import BoolArray, FloatArray, HeldOutEnsemble
from .quality_features import ExtraColumns, SeenOf

if TYPE_CHECKING:
    from ..search_spaces import SearchSpace
    from .regressors import Regressor


class BoostedTreesQuality(HeldOutEnsemble):
    """Least-squares boosting (Friedman 2001) in each member, on normal scores of quality.

    Args:
        space, seed, seen, extra, members: See :class:`~gnomon.predictors.held_out.HeldOutEnsemble`.
        trees: Of each member.
        depth: Of each tree, at most.
        learning_rate: Share of each tree's correction that is kept.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        seen: SeenOf = "both",
        extra: ExtraColumns | None = None,
        members: int = 8,
        trees: int = 60,
        depth: int = 3,
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__(space, seed=seed, seen=seen, extra=extra, members=members)
        for field, value in (("trees", trees), ("depth", depth)):
            if value < 1:
                raise PredictorError("too few", field=field, value=value, allowed="at least 1")
        if not 0 < learning_rate <= 1:
            raise PredictorError("not a share", field="learning_rate", value=learning_rate, allowed="above 0, up to 1")
        self.trees, self.depth, self.learning_rate = trees, depth, learning_rate

    def train(self, features: FloatArray, scores: FloatArray, kept: BoolArray) -> Sequence[Regressor]:
        """See :meth:`HeldOutEnsemble.train`."""
        return [
            fit_boosted_trees(
                features[rows],
                scores[rows],
                trees=self.trees,
                depth=self.depth,
                learning_rate=self.learning_rate,
                seed=self.seed + member,
            )
            for member, rows in enumerate(kept)
        ]
