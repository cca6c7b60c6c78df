"""Quality by a Gaussian process that looks beyond the best seen so far.

Shapes: N architectures, F features.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .gaussian_process import GaussianProcess
from .quality import QualityPredictor, checked_evaluations
from .quality_features import ExtraColumns, QualityFeatures, SeenOf

FloatArray = npt.NDArray[np.float64]

LOWER_RANGES = 3.0
"""How far below the median quality still tells failures apart, in units of the upper range
(90 % quantile less median). Results hardly change between 0.75 and 6, on NAS-Bench-201 and on
NAS-Bench-Macro; without a floor they are clearly worse."""

INFLATION = (0.25, 4.0)


class UpperGaussianProcess(QualityPredictor):
    """A Gaussian process on quality whose lower tail is cut off.

    A search asks which network is better than all before it. Trees never answer beyond what they
    saw, and rank transforms flatten what lies beyond; a Gaussian process with a linear part
    extrapolates. What it cannot bear are the few networks that fail badly, so qualities far below
    the median are raised to a floor: how bad a bad network is hardly matters.

    The deviation is scaled so that leave-one-out residuals have unit variance.

    Args:
        space: Where the architectures come from.
        seed: Of the sample that scales features.
        seen: What of an architecture is seen, see :class:`~gnomon.predictors.quality_features.QualityFeatures`.
        extra: Further columns ``(N, P)``, such as zero-cost scores.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int = 0, seen: SeenOf = "both", extra: ExtraColumns | None = None
    ) -> None:
        super().__init__(space, seed=seed)
        self._features = QualityFeatures(space, seen=seen, extra=extra, seed=seed)
        self._process: GaussianProcess | None = None
        self._mean, self._scale, self._inflation = 0.0, 1.0, 1.0

    def fit(self, genotypes: Genotypes, quality: FloatArray) -> Self:
        """See :meth:`QualityPredictor.fit`."""
        genotypes, quality = checked_evaluations(self.space, genotypes, quality)
        targets = np.maximum(quality, _floor(quality))
        self._mean, self._scale = float(targets.mean()), float(targets.std()) or 1.0
        targets = (targets - self._mean) / self._scale
        features = self._features.learn(genotypes)
        self._process = GaussianProcess(features, targets, self._features.leading)
        errors = np.square(targets - self._process.loo_mean) / self._process.loo_variance
        self._inflation = float(np.sqrt(np.clip(errors.mean(), *INFLATION)))
        return self

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`QualityPredictor.predict`."""
        process = self._fitted()
        if not len(genotypes):
            return np.zeros(0), np.zeros(0)
        mean, variance = process.predict(self._features(genotypes))
        return mean * self._scale + self._mean, np.sqrt(variance) * self._inflation * self._scale

    def draw(self, genotypes: Genotypes, n: int, rng: np.random.Generator) -> FloatArray:
        """See :meth:`QualityPredictor.draw`; of the process' joint distribution."""
        process = self._fitted()
        if not len(genotypes):
            return np.zeros((n, 0))
        mean, off = process.draw(self._features(genotypes), n, rng)
        return np.asarray((mean + off * self._inflation) * self._scale + self._mean)

    def _fitted(self) -> GaussianProcess:
        if self._process is None:
            raise PredictorError("the quality predictor knows no evaluation yet", hint="Call fit first.")
        return self._process


def _floor(quality: FloatArray) -> float:
    """Below which a quality tells nothing more."""
    median, upper = np.quantile(quality, [0.5, 0.9])
    return float(median - LOWER_RANGES * (upper - median)) if upper > median else float(quality.min())
