"""How few-shot predictors are compared: one protocol for ``gnomon predictor evaluate`` and the benchmarks.

A split says what a predictor may learn from, what it may measure on a target and what it is scored on.
References are chosen by design, so one run says nothing of chance: every seed resamples the source
architectures (bootstrap) and leaves a random half of the candidates for references to choose from.
Both depend on the seed alone, so every predictor meets the same draws.

Shapes: Q query rows, S settings.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..records.pool import DevicePool
from ..records.splits import DeviceSplit, Round
from ..search_spaces import Genotypes, SearchSpace
from .base import LatencyPredictor
from .evaluate import PredictorScores, score
from .feature_learner import FeatureLearner, FeatureModel
from .feature_tables import NoArchitectures

FloatArray = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int64]
PredictorFactory: TypeAlias = Callable[[SearchSpace], LatencyPredictor]
"""Makes a predictor that has learnt nothing yet, for a space."""

BOOTSTRAP, HALF = 0xB007, 0x4A1F
"""Streams of random numbers, beside the seed."""


def few_shot_scores(
    predictor_factory: PredictorFactory,
    split: DeviceSplit,
    round: Round,
    target: str,
    samples: int,
    seed: int,
    *,
    pool: DevicePool | None = None,
) -> dict[str, PredictorScores]:
    """Scores of one predictor on one target after ``samples`` measurements, by query of the split.

    To score several targets or sample sizes, make one :class:`FewShotProtocol`: it learns from a
    round's sources once.

    Args:
        predictor_factory: From a space to a fresh predictor.
        split: The protocol's data and rows.
        round: One of ``split.rounds``: its sources are learnt from.
        target: A target or validation setting of the round.
        samples: Measurements on the target.
        seed: Of the bootstrap and of the half of the candidates.
        pool: ``split.pool()``, if it was read already.

    Raises:
        PredictorError: If the target is no target of the round, the predictor cannot learn from
            these data, or the candidates are too few.
    """
    return FewShotProtocol(predictor_factory, split, pool).scores(round, target, samples, seed)


@dataclass(frozen=True)
class Adapted:
    """A model of one target.

    Args:
        measured: Rows of the pool that were measured on the target, in order of choice.
        predict: Mean and deviation in ms, each ``(Q,)``, of rows of the pool ``(Q,)``.
    """

    measured: Rows
    predict: Callable[[Rows], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True)
class Answers:
    """What a model says of a query, beside what was measured; each ``(Q,)``, latencies in ms."""

    rows: Rows
    measured_ms: FloatArray
    mean_ms: FloatArray
    std_ms: FloatArray

    def scores(self, n_measurements: int) -> PredictorScores:
        """See :func:`~gnomon.predictors.evaluate.score`."""
        return score(self.mean_ms, self.std_ms, self.measured_ms, n_measurements)


class FewShotProtocol:
    """Runs one kind of predictor under one split.

    Args:
        make: From a space to a predictor that has learnt nothing yet.
        split: See :class:`~gnomon.records.splits.DeviceSplit`.
        pool: ``split.pool()``, if it was read already.
        progress: Handed to ``fit`` of predictors that take it (HELP).
    """

    def __init__(
        self,
        make: PredictorFactory,
        split: DeviceSplit,
        pool: DevicePool | None = None,
        *,
        progress: Callable[[Any], None] | None = None,
    ) -> None:
        self.make = make
        self.split = split
        self.pool = split.pool() if pool is None else pool
        self._progress = progress
        self._learner: tuple[tuple[Round, int], _RowLearner] | None = None

    def adapted(self, chosen: Round, target: str, samples: int, seed: int) -> Adapted:
        """The model of a target from ``samples`` measurements.

        Raises:
            PredictorError: See :func:`few_shot_scores`.
        """
        allowed = (*chosen.targets, *chosen.validation)
        if target not in allowed:
            raise PredictorError("no target of this round", field="target", value=target, allowed=allowed)
        learner = self._learnt(chosen, seed)
        measured = learner.references(candidate_half(self.split, self.pool, target, seed), samples, seed)
        latencies = self.pool.column(target)[measured]
        return Adapted(measured, learner.adapt(measured, latencies))

    def answers(self, model: Adapted, target: str, query: str) -> Answers:
        """What ``model`` says of a query's rows, those that it measured left out."""
        rows = self.split.query_rows(self.pool, target, query)
        rows = rows[~np.isin(rows, model.measured)]
        mean, deviation = model.predict(rows)
        return Answers(rows, self.pool.column(target)[rows], mean, deviation)

    def scores(self, chosen: Round, target: str, samples: int, seed: int) -> dict[str, PredictorScores]:
        """Scores by query of the split.

        Raises:
            PredictorError: See :func:`few_shot_scores`.
        """
        return self.scores_of(self.adapted(chosen, target, samples, seed), target)

    def scores_of(self, model: Adapted, target: str) -> dict[str, PredictorScores]:
        """Scores of an adapted model by query of the split."""
        n = len(model.measured)
        return {query: self.answers(model, target, query).scores(n) for query in self.split.queries}

    def _learnt(self, chosen: Round, seed: int) -> _RowLearner:
        """The predictor after its first life; the last one is kept."""
        if self._learner is None or self._learner[0] != (chosen, seed):
            learner = _row_learner(self.make, self.pool)
            if learner.learns:
                sources = bootstrapped(self.split.source_pool(self.pool, chosen), seed)
                learner.fit(sources, seed, self._progress)
            self._learner = ((chosen, seed), learner)
        return self._learner[1]


def bootstrapped(pool: DevicePool, seed: int) -> DevicePool:
    """As many rows as the pool has, drawn with replacement. Rows repeat, which other pools' rows do
    not; settings that measured none of the rows drawn stay, empty."""
    drawn = np.random.default_rng([seed, BOOTSTRAP]).integers(len(pool), size=len(pool))
    return pool.rows(np.sort(drawn))


def candidate_half(split: DeviceSplit, pool: DevicePool, target: str, seed: int) -> Rows:
    """A random half of the rows that may be measured on a target, ascending."""
    rows = split.reference_rows(pool, target)
    shuffled = np.random.default_rng([seed, HALF]).permutation(rows)
    return np.sort(shuffled[: len(rows) // 2])


# ---- Predictors in row numbers ---------------------------------------------------------------


class _RowLearner(ABC):
    """A predictor on one pool, spoken to in row numbers, whether the pool has architectures or not."""

    learns: bool

    @abstractmethod
    def fit(self, sources: DevicePool, seed: int, progress: Callable[[Any], None] | None) -> None: ...

    @abstractmethod
    def references(self, among: Rows, n: int, seed: int) -> Rows: ...

    @abstractmethod
    def adapt(self, rows: Rows, latencies_ms: FloatArray) -> Callable[[Rows], tuple[FloatArray, FloatArray]]: ...


class _OnArchitectures(_RowLearner):
    def __init__(self, predictor: LatencyPredictor, genotypes: Genotypes) -> None:
        self.predictor = predictor
        self.genotypes = genotypes
        self.learns = predictor.learns

    def fit(self, sources: DevicePool, seed: int, progress: Callable[[Any], None] | None) -> None:
        fit: Any = self.predictor.fit
        takes_progress = "progress" in inspect.signature(fit).parameters
        fit(sources, seed=seed, **({"progress": progress} if takes_progress else {}))

    def references(self, among: Rows, n: int, seed: int) -> Rows:
        chosen = self.predictor.references(n, seed=seed, among=self.genotypes[among])
        keys = self.predictor.space.keys(self.genotypes[among])
        row_of = dict(zip(keys, among.tolist(), strict=True))
        return np.array([row_of[key] for key in self.predictor.space.keys(chosen)], dtype=np.int64)

    def adapt(self, rows: Rows, latencies_ms: FloatArray) -> Callable[[Rows], tuple[FloatArray, FloatArray]]:
        model = self.predictor.adapt(self.genotypes[rows], latencies_ms)
        return lambda queries: model.predict(self.genotypes[queries])


class _OnFeatures(_RowLearner):
    def __init__(self, learner: FeatureLearner, features: FloatArray) -> None:
        self.learner = learner
        self.features = features
        self.learns = learner.learns

    def fit(self, sources: DevicePool, seed: int, progress: Callable[[Any], None] | None) -> None:
        if sources.features is not None:
            self.learner.fit(sources.features, sources.latencies_ms, sources.settings, seed=seed)

    def references(self, among: Rows, n: int, seed: int) -> Rows:
        return np.asarray(among[self.learner.references(self.features[among], n)])

    def adapt(self, rows: Rows, latencies_ms: FloatArray) -> Callable[[Rows], tuple[FloatArray, FloatArray]]:
        model: FeatureModel = self.learner.adapt(self.features[rows], latencies_ms)
        return lambda queries: model.predict(self.features[queries])


def _row_learner(make: PredictorFactory, pool: DevicePool) -> _RowLearner:
    if pool.space is not None and pool.genotypes is not None:
        return _OnArchitectures(make(pool.space), pool.genotypes)
    if pool.features is None:
        raise PredictorError("the pool is empty", field="pool", value=pool.source)
    return _OnFeatures(make(NoArchitectures()).on_features(pool.features, pool.feature_names), pool.features)
