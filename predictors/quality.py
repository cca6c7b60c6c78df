"""Quality of architectures never trained, from a few that were.

Shapes: N architectures, D decisions, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .features import choice_names, one_hot
from .gaussian_process import GaussianProcess
from .normal_scores import NormalScores

FloatArray = npt.NDArray[np.float64]

MIN_EVALUATIONS = 4
SCALING_SAMPLE = 2048


class QualityPredictor(ABC):
    """Learns quality from the evaluations of a search; larger is better.

    Args:
        space: Where the architectures come from.
        seed: Of everything random within.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        self.space = space
        self.seed = seed

    @abstractmethod
    def fit(self, genotypes: Genotypes, quality: FloatArray) -> Self:
        """Learns from canonical rows ``(N, D)`` and their quality ``(N,)``. Deterministic.

        Raises:
            PredictorError: If there are too few, or lengths differ, or a value is not finite.
        """

    @abstractmethod
    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation ``(N,)`` each, in the unit of quality; the deviation is that
        of a new evaluation. Vectorised: a search asks for tens of thousands at once.

        Raises:
            PredictorError: Before :meth:`fit`.
        """

    def spread(self, genotypes: Genotypes, deviations: FloatArray) -> FloatArray:
        """Quality at so many standard deviations from the centre of the prediction ``(W, N)``, from
        which a search draws: standard-normal ``deviations`` ``(W, N)`` or ``(W, 1)`` give draws of
        the prediction. Here of a normal; a predictor of skewed qualities knows better."""
        mean, std = self.predict(genotypes)
        return np.asarray(mean + deviations * std)

    def draw(self, genotypes: Genotypes, n: int, rng: np.random.Generator) -> FloatArray:
        """``n`` draws of the quality of all rows at once ``(n, N)``. Here each row by itself; a predictor
        that knows which rows are good or bad together draws them so, and a batch of proposals is then
        spread over what differs."""
        return self.spread(genotypes, rng.standard_normal((n, len(genotypes))))


class EnsembleQualityPredictor(QualityPredictor):
    """A Gaussian process and extremely randomised trees on normal scores of the quality.

    Accuracies are skewed: a few networks fail badly, and the interesting ones crowd at the top.
    Ranks mapped to normal scores spread the top out, and are undone for the answer; on
    NAS-Bench-201 this matters more than the choice of regressor. The two members are mixed by
    their leave-one-out (process) and out-of-bag (trees; Geurts et al. 2006) errors, and the
    deviation is scaled so that held-out residuals have unit variance.

    Args:
        space: Where the architectures come from; its ``encode`` and its decisions give the features.
        seed: Of the trees.
        trees: Their number.
    """

    def __init__(self, space: SearchSpace, *, seed: int = 0, trees: int = 64) -> None:
        super().__init__(space, seed=seed)
        if trees < 1:
            raise PredictorError("no trees", field="trees", value=trees, allowed="at least 1")
        self.trees = trees
        choices = set(choice_names(space))
        self._work = np.array([i for i, name in enumerate(space.feature_names) if name not in choices], dtype=np.int64)
        self._centre, self._scale = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32)
        self._centre, self._scale = _centre_and_scale(
            self._features(space.sample(SCALING_SAMPLE, np.random.default_rng(seed)))
        )
        self._scores: NormalScores | None = None
        self._process: GaussianProcess
        self._forest: Any
        self._forest_variance: float
        self._share: float
        self._inflation: float

    def fit(self, genotypes: Genotypes, quality: FloatArray) -> Self:
        """See :meth:`QualityPredictor.fit`."""
        genotypes, quality = checked_evaluations(self.space, genotypes, quality)
        scores = NormalScores(quality)
        targets = scores.forward
        features = self._features(genotypes)
        self._process = GaussianProcess(features, targets, len(self._work))
        self._forest, held_out = self._grow(features, targets)
        self._forest_variance = max(float(np.square(targets - held_out).mean()), 1e-6)
        self._share = _mixing_share(self._process.loo_mean, held_out, targets)
        mean, variance = self._mix(self._process.loo_mean, self._process.loo_variance, held_out)
        self._inflation = float(np.clip((np.square(targets - mean) / variance).mean(), 0.25, 4.0))
        self._scores = scores
        return self

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`QualityPredictor.predict`."""
        scores, mean, deviation = self._in_scores(genotypes)
        return scores.inverse(mean, deviation)

    def spread(self, genotypes: Genotypes, deviations: FloatArray) -> FloatArray:
        """See :meth:`QualityPredictor.spread`. Deviations are taken before the way back from scores,
        so that quality is as skewed here as it is in the evaluations."""
        scores, mean, deviation = self._in_scores(genotypes)
        return scores.values(mean + deviations * deviation)

    def _in_scores(self, genotypes: Genotypes) -> tuple[NormalScores, FloatArray, FloatArray]:
        """The map of scores, and means and deviations in scores ``(N,)``."""
        if self._scores is None:
            raise PredictorError("the quality predictor knows no evaluation yet", hint="Call fit first.")
        features = self._features(self.space.algebra.validate(genotypes))
        if not len(features):
            return self._scores, np.zeros(0), np.zeros(0)
        mean, variance = self._mix(*self._process.predict(features), self._forest.predict(features))
        return self._scores, mean, np.sqrt(variance * self._inflation)

    def _features(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """What the space counts, then which choice each decision takes, all scaled ``(N, F)``."""
        work = self.space.encode(genotypes)[:, self._work]
        features = np.concatenate([work, one_hot(self.space, genotypes)], axis=1)
        return np.asarray((features - self._centre) * self._scale)

    def _grow(self, features: npt.NDArray[np.float32], targets: FloatArray) -> tuple[Any, FloatArray]:
        """The trees, and what those that did not see a point say of it ``(N,)``."""
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            self.trees, max_features=0.5, bootstrap=True, random_state=self.seed, n_jobs=1
        ).fit(features, targets)
        total, count = np.zeros(len(targets)), np.zeros(len(targets))
        for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
            unseen = np.ones(len(targets), dtype=bool)
            unseen[drawn] = False
            total[unseen] += tree.predict(features[unseen]) if unseen.any() else 0.0
            count += unseen
        return forest, np.where(count > 0, total / np.maximum(count, 1), targets.mean())

    def _mix(self, process: FloatArray, variance: FloatArray, forest: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of the two-member mixture."""
        share = self._share
        mean = share * process + (1 - share) * forest
        spread = share * (1 - share) * np.square(process - forest)
        return mean, share * variance + (1 - share) * self._forest_variance + spread


def _centre_and_scale(sample: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Centre and inverse deviation of each column over a sample; 0 for columns that never vary."""
    deviation = sample.std(axis=0, dtype=np.float64)
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    return sample.mean(axis=0, dtype=np.float64).astype(np.float32), inverse.astype(np.float32)


def _mixing_share(process: FloatArray, forest: FloatArray, targets: FloatArray) -> float:
    """Share of the process that minimises the held-out squared error, within 0 to 1."""
    difference = process - forest
    power = float(np.square(difference).sum())
    return float(np.clip(difference @ (targets - forest) / power, 0.0, 1.0)) if power > 0 else 0.5


def checked_evaluations(space: SearchSpace, genotypes: Genotypes, quality: FloatArray) -> tuple[Genotypes, FloatArray]:
    """Rows ``(N, D)`` and qualities ``(N,)`` as :meth:`QualityPredictor.fit` wants them.

    Raises:
        PredictorError: If there are too few, or lengths differ, or a value is not finite.
    """
    genotypes = space.algebra.validate(genotypes)
    quality = np.asarray(quality, dtype=np.float64)
    if quality.shape != (len(genotypes),):
        raise PredictorError(
            "as many qualities as architectures are needed",
            field="quality",
            value=f"shape {quality.shape}",
            allowed=f"({len(genotypes)},)",
        )
    if len(quality) < MIN_EVALUATIONS:
        raise PredictorError(
            "too few evaluations", field="quality", value=len(quality), allowed=f"at least {MIN_EVALUATIONS}"
        )
    if not np.isfinite(quality).all():
        raise PredictorError(
            "not finite", field="quality", value=quality[~np.isfinite(quality)][0], allowed="finite numbers"
        )
    return genotypes, quality
