"""Ensembles whose members each leave out a part of what is known, and are calibrated on it.

Shapes: N evaluated or queried architectures, F features, E members.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .normal_scores import NormalScores
from .quality import QualityPredictor, checked_evaluations
from .quality_features import ExtraColumns, QualityFeatures, SeenOf
from .regressors import Regressor

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FOLDS = 4
INFLATION = (0.25, 4.0)
FLAT = 1e-12
MAX_SLOPE = 10.0


class HeldOutEnsemble(QualityPredictor):
    """The mean of E regressors of the quality's normal scores.

    The evaluations are cut into four parts, anew for every four members, and each member leaves
    one out. What members say of the parts they did not see gives the error; the deviation of a
    prediction adds the disagreement of the members to it, scaled so that held-out residuals have
    unit variance. Members that answer in a scale of their own (comparators) are brought to normal
    scores by a line through their held-out answers.

    Args:
        space: Where the architectures come from.
        seed: Of everything random.
        seen: What of an architecture is seen, see :class:`~gnomon.predictors.quality_features.QualityFeatures`.
        extra: Further columns ``(N, P)``, such as zero-cost scores.
        members: E, a multiple of 4.
    """

    own_scale: ClassVar[bool] = False
    """Whether members answer in a scale of their own, with a zero of their own."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        seen: SeenOf = "both",
        extra: ExtraColumns | None = None,
        members: int = 8,
    ) -> None:
        super().__init__(space, seed=seed)
        if members < FOLDS or members % FOLDS:
            raise PredictorError("not so many", field="members", value=members, allowed=f"a multiple of {FOLDS}")
        self.members = members
        self._features = QualityFeatures(space, seen=seen, extra=extra, seed=seed)
        self._regressors: Sequence[Regressor] = ()
        self._scores: NormalScores
        self._offsets: FloatArray = np.zeros((members, 1))
        self._slope, self._noise, self._inflation = 1.0, 1.0, 1.0

    @abstractmethod
    def train(self, features: FloatArray, scores: FloatArray, kept: BoolArray) -> Sequence[Regressor]:
        """E regressors.

        Args:
            features: ``(N, F)``.
            scores: Normal scores of quality ``(N,)``.
            kept: Which rows each sees ``(E, N)``.
        """

    def fit(self, genotypes: Genotypes, quality: FloatArray) -> Self:
        """See :meth:`QualityPredictor.fit`."""
        genotypes, quality = checked_evaluations(self.space, genotypes, quality)
        scores = NormalScores(quality)
        features = self._features.learn(genotypes)
        kept = _kept(len(quality), self.members, self.seed)
        regressors = self.train(features, scores.forward, kept)
        answers = np.stack([regressor.predict(features) for regressor in regressors])
        self._calibrate(answers, ~kept, scores.forward)
        self._regressors, self._scores = regressors, scores
        return self

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`QualityPredictor.predict`."""
        mean, deviation = self._in_scores(genotypes)
        return self._scores.inverse(mean, deviation)

    def spread(self, genotypes: Genotypes, deviations: FloatArray) -> FloatArray:
        """See :meth:`QualityPredictor.spread`; as skewed as the evaluations are."""
        mean, deviation = self._in_scores(genotypes)
        return self._scores.values(mean + deviations * deviation)

    def draw(self, genotypes: Genotypes, n: int, rng: np.random.Generator) -> FloatArray:
        """See :meth:`QualityPredictor.draw`. Rows on which the same members disagree move together."""
        answers = self._slope * self.answers(genotypes)
        mean = answers.mean(axis=0)
        together = rng.standard_normal((n, self.members)) @ (answers - mean) / np.sqrt(self.members)
        alone = rng.standard_normal((n, answers.shape[1])) * np.sqrt(self._noise)
        return self._scores.values(mean + (together + alone) * np.sqrt(self._inflation))

    def _calibrate(self, answers: FloatArray, unseen: BoolArray, scores: FloatArray) -> None:
        """The line to scores, the noise, and how far deviations are off, from what members ``(E, N)``
        say of rows that they did not see."""
        if self.own_scale:
            self._offsets = answers.mean(axis=1, keepdims=True)
            answers = answers - self._offsets
        mean = np.where(unseen, answers, 0.0).sum(axis=0) / unseen.sum(axis=0)
        if self.own_scale:
            power = float(mean @ mean)
            self._slope = float(np.clip(mean @ scores / power, 0.0, MAX_SLOPE)) if power > FLAT else 0.0
        errors = np.square(scores - self._slope * mean)
        spread = np.square(self._slope) * answers.var(axis=0)
        self._noise = max(float((errors - spread).mean()), 0.1 * float(errors.mean()), FLAT)
        self._inflation = float(np.clip((errors / (self._noise + spread)).mean(), *INFLATION))

    def _in_scores(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation in normal scores ``(N,)``."""
        answers = self._slope * self.answers(genotypes)
        return answers.mean(axis=0), np.sqrt((self._noise + answers.var(axis=0)) * self._inflation)

    def answers(self, genotypes: Genotypes) -> FloatArray:
        """What members say ``(E, N)``, in their own scale but with the same zero.

        Raises:
            PredictorError: Before :meth:`fit`.
        """
        if not self._regressors:
            raise PredictorError("the quality predictor knows no evaluation yet", hint="Call fit first.")
        features = self._features(self.space.algebra.validate(genotypes))
        if not len(features):
            return np.zeros((self.members, 0))
        return np.stack([regressor.predict(features) for regressor in self._regressors]) - self._offsets


def _kept(n: int, members: int, seed: int) -> BoolArray:
    """Which rows each member sees ``(E, N)``: each four members leave out each row once."""
    rng = np.random.default_rng([seed, 0xF01D])
    parts = np.stack([rng.permutation(np.arange(n) % FOLDS) for _ in range(members // FOLDS)])
    return np.asarray((parts[:, None] != np.arange(FOLDS)[:, None]).reshape(members, n))
