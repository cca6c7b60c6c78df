"""HAT's latency predictor: a multilayer perceptron without transfer (2005.14187)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..search_spaces import SearchSpace
from .analytic import FLOOR_SHARE
from .batched_mlp import MLP, train_mlps
from .regression import Regression, RegressionPredictor, checked_count, checked_strength, folds, relative_deviation

FloatArray = npt.NDArray[np.float64]


class HATMLPPredictor(RegressionPredictor):
    """Four hidden layers of 400, rectified; Adam on the squared error of latency over its mean.

    HAT trains on some 1,600 networks of its space, described by ten features; :meth:`regress` takes
    those. It takes 5,000 steps at 1e-5; on its published tables ten times fewer, ten times as large,
    are no worse. Its features are divided by constants, here by their largest values. The deviation comes
    from networks that are trained beside the first, each without a part of the measurements.

    Args:
        space: Gives the features.
        width: Of each hidden layer.
        layers: Hidden layers.
        steps: Of Adam.
        batch: Measurements a step.
        learning_rate: Of Adam.
        parts: Into how many parts measurements are split for the deviation.
        seed: Of initial weights and batches.
        decay: Whether the learning rate falls linearly to 0, which HAT's does not: the last steps' noise is the
            larger part of the error of short trainings at high rates.
    """

    minimum = 3

    def __init__(
        self,
        space: SearchSpace,
        *,
        width: int = 400,
        layers: int = 4,
        steps: int = 500,
        batch: int = 128,
        learning_rate: float = 1e-4,
        parts: int = 5,
        seed: int = 0,
        decay: bool = False,
    ) -> None:
        super().__init__(space)
        self.width = checked_count(width, "width")
        self.layers = checked_count(layers, "layers")
        self.steps = checked_count(steps, "steps")
        self.batch = checked_count(batch, "batch")
        self.learning_rate = checked_strength(learning_rate, "learning_rate")
        self.parts = checked_count(parts, "parts", 2)
        self.seed = checked_count(seed, "seed", 0)
        self.decay = decay

    def fit_columns(self, features: FloatArray, targets: FloatArray) -> MLP:
        """See :meth:`RegressionPredictor.fit_columns`."""
        return self._train(features, targets, np.ones((1, len(targets)), dtype=bool))[0]

    def regress(self, features: FloatArray, latencies_ms: FloatArray) -> Regression:
        """See :meth:`RegressionPredictor.regress`: all networks are trained at once."""
        scale_ms = float(latencies_ms.mean())
        targets = latencies_ms / scale_ms
        floor = FLOOR_SHARE * float(targets.min())
        parts = folds(features, self.parts)
        network, *others = self._train(features, targets, ~np.stack([np.zeros(len(targets), dtype=bool), *parts]))
        errors = np.empty(len(targets))
        for part, other in zip(parts, others, strict=True):
            errors[part] = np.maximum(other.predict(features[part]), floor) / targets[part] - 1.0
        return Regression(network, scale_ms, relative_deviation(errors), floor * scale_ms)

    def _train(self, features: FloatArray, targets: FloatArray, kept: npt.NDArray[np.bool_]) -> list[MLP]:
        return train_mlps(
            features,
            targets,
            kept,
            hidden=(self.width,) * self.layers,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            seed=self.seed,
            decay=self.decay,
        )
