"""nu-support-vector regression on curves.

Shapes: N trainings, F features.
"""

from __future__ import annotations

from itertools import product
from typing import Any, ClassVar, TypeAlias

import numpy as np

from .regressor import CurveRegressor, Fitted, FloatArray, folds

Settings: TypeAlias = tuple[float, float, float]
"""C, nu, and the kernel's width as a multiple of sqrt(F)."""

C_AND_WIDTH = ((1.0, 1.0), (10.0, 1.0), (1.0, 3.0), (10.0, 3.0), (100.0, 3.0), (100.0, 10.0))
"""Others are as good as one of these, or take long."""
GRID: tuple[Settings, ...] = tuple((c, nu, width) for (c, width), nu in product(C_AND_WIDTH, (0.5, 0.8)))
TUNING_FOLDS = 4
HELD_OUT_FOLDS = 10


class NuSupportVectors(CurveRegressor):
    """nu-SVR (Schölkopf et al. 2000) with a Gaussian kernel: the regressor that 1705.10823 recommends.

    C, nu and the kernel's width are those of least absolute error in cross-validation, over a grid. Held-out
    predictions come from other folds than those of the tuning.
    """

    name: ClassVar[str] = "nu_svr"

    def learn(self, features: FloatArray, targets: FloatArray) -> tuple[Fitted, FloatArray]:
        """See :meth:`CurveRegressor.learn`."""
        n = len(targets)
        tuning = folds(n, min(TUNING_FOLDS, n), self.seed)
        errors = [np.abs(_held_out(features, targets, settings, tuning) - targets).mean() for settings in GRID]
        settings = GRID[int(np.argmin(errors))]
        held_out = _held_out(features, targets, settings, folds(n, min(HELD_OUT_FOLDS, n), self.seed + 1))
        machine = _fit(features, targets, settings)
        return lambda rows: np.asarray(machine.predict(rows)), held_out


def _held_out(features: FloatArray, targets: FloatArray, settings: Settings, fold: Any) -> FloatArray:
    predicted = np.empty(len(targets))
    for number in range(int(fold.max()) + 1):
        out = fold == number
        predicted[out] = _fit(features[~out], targets[~out], settings).predict(features[out])
    return predicted


def _fit(features: FloatArray, targets: FloatArray, settings: Settings) -> Any:
    from sklearn.svm import NuSVR

    c, nu, width = settings
    gamma = 0.5 / (width**2 * max(1, features.shape[1]))
    return NuSVR(C=c, nu=nu, gamma=gamma, tol=1e-2, cache_size=20).fit(features, targets)
