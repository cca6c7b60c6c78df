"""The quality predictor of guided strategies: made to look beyond the best seen so far.

Shapes: N architectures, F features.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError
from ...predictors.features import choice_names, one_hot
from ...predictors.gaussian_process import GaussianProcess
from ...predictors.quality import QualityPredictor
from ...search_spaces import Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]

SCALING_SAMPLE = 2048
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
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        choices = set(choice_names(space))
        self._work = np.array([i for i, name in enumerate(space.feature_names) if name not in choices], dtype=np.int64)
        sample = self._raw(space.sample(SCALING_SAMPLE, np.random.default_rng(seed))).astype(np.float64)
        deviation = sample.std(axis=0)
        self._centre = sample.mean(axis=0)
        self._inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)
        self._process: GaussianProcess | None = None
        self._mean, self._scale, self._inflation = 0.0, 1.0, 1.0

    def fit(self, genotypes: Genotypes, quality: FloatArray) -> Self:
        """See :meth:`QualityPredictor.fit`."""
        genotypes = self.space.algebra.validate(genotypes)
        if len(quality) != len(genotypes) or len(quality) < 2 or not np.isfinite(quality).all():
            raise PredictorError(
                "as many finite qualities as architectures are needed, at least 2", field="quality", value=len(quality)
            )
        targets = np.maximum(quality, _floor(quality))
        self._mean, self._scale = float(targets.mean()), float(targets.std()) or 1.0
        targets = (targets - self._mean) / self._scale
        self._process = GaussianProcess(self._features(genotypes), targets, len(self._work))
        errors = np.square(targets - self._process.loo_mean) / self._process.loo_variance
        self._inflation = float(np.sqrt(np.clip(errors.mean(), *INFLATION)))
        return self

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`QualityPredictor.predict`."""
        if self._process is None:
            raise PredictorError("the quality predictor knows no evaluation yet", hint="Call fit first.")
        if not len(genotypes):
            return np.zeros(0), np.zeros(0)
        mean, variance = self._process.predict(self._features(genotypes))
        return mean * self._scale + self._mean, np.sqrt(variance) * self._inflation * self._scale

    def _raw(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """What the space counts, then which choice each decision takes ``(N, F)``."""
        work = self.space.encode(genotypes)[:, self._work]
        return np.concatenate([work, one_hot(self.space, genotypes)], axis=1)

    def _features(self, genotypes: Genotypes) -> FloatArray:
        return np.asarray((self._raw(genotypes) - self._centre) * self._inverse)


def _floor(quality: FloatArray) -> float:
    """Below which a quality tells nothing more."""
    median, upper = np.quantile(quality, [0.5, 0.9])
    return float(median - LOWER_RANGES * (upper - median)) if upper > median else float(quality.min())
