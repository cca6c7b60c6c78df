"""Quality by training, where trainings that cannot win are stopped.

Shapes: N past evaluations, D decisions, A attributes, T epochs of a whole training, t epochs seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from ...predictors.curves import CurveRegressor
from ...predictors.features import choice_names, one_hot
from ...records import Evaluation
from ...search_spaces import Architecture, Genotypes, SearchSpace
from ..base import Past, Progress, StopTraining, Task
from ..torch_state import torch_threads
from ..train_evaluator import TimeLimit, TrainEvaluator
from .rule import Ended, Outlook, StoppingRule, check_number, is_audited

FloatArray = npt.NDArray[np.float64]


class EarlyStoppedTrainEvaluator(TrainEvaluator):
    """Trains each architecture from scratch, and stops a training once its predicted end cannot join the front
    (Baker et al., 1705.10823).

    Beside the curve, the regressors see the architecture: its choices and the logarithms of its MACs and parameters.
    What is to beat depends on the architecture: the quality that it needs so that no finished one is at least as good
    in everything (with one objective: the best of the search). The curves are those in the study's ledger, so that
    all workers see them, and a search that goes on decides as it would have.

    A stopped training's quality is its *predicted* end, with ``quality_std`` and ``stopped_at``. By the rule it lies
    below what is to beat, so that no stopped training is ever on the front by its prediction. Its metrics are those
    of the epoch in which it was stopped.

    Args:
        space, task, epochs, threads, time_limit_s: See :class:`TrainEvaluator`. Trainings that a time limit ended
            teach nothing.
        confidence, burn_in, rank, first_epoch, regressor, best_possible: See :class:`StoppingRule`.
        audit: Share of trainings that run to their end whatever is expected of them. Those that the rule would have
            stopped tell how often it is wrong.
    """

    name: ClassVar[str] = "train_early_stopping"

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        epochs: float = 12,
        confidence: float = 0.99,
        burn_in: int = 20,
        rank: int = 1,
        first_epoch: int = 1,
        regressor: CurveRegressor | None = None,
        best_possible: float | None = None,
        audit: float = 0.05,
        threads: int | None = 1,
        time_limit_s: float | None = None,
    ) -> None:
        super().__init__(space, task, epochs, threads, time_limit_s)
        if math.ceil(epochs) < 2:
            raise ConfigError("has nothing to stop", field="quality.epochs", value=epochs, allowed="more than 1")
        check_number("quality.audit", audit, 0 <= audit < 1, "0 to below 1")
        self.rule = StoppingRule(confidence, burn_in, rank, first_epoch, regressor, best_possible, field="quality.")
        self.audit = float(audit)
        self._past = _Known.nothing(math.ceil(epochs))

    def observe(self, past: Sequence[Past], to_beat: FloatArray) -> None:
        """See :meth:`Evaluator.observe`."""
        whole = [
            (one, needed)
            for one, needed in zip(past, to_beat, strict=True)
            if one.evaluation.stopped_at is None and len(one.evaluation.curve) == math.ceil(self.epochs)
        ]
        if not whole:
            self._past = _Known.nothing(math.ceil(self.epochs))
            return
        curves = np.array([one.evaluation.curve for one, _ in whole], dtype=np.float64)
        attributes = self._attributes(np.stack([one.genotype for one, _ in whole]))
        self._past = _Known(Ended(curves, attributes), np.array([needed for _, needed in whole]))

    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """Validation quality after the budget, or its prediction where the training was stopped. Deterministic by
        seed and by what was observed.

        Raises:
            TaskError: If the architecture cannot be built or trained.
        """
        attributes = self._attributes(self.space.genotype(architecture.config)[None])[0]
        audited = is_audited(self.audit, seed)
        watch = _Watch(self.rule, self._past, attributes, audited, TimeLimit(progress, self.time_limit_s))
        with torch_threads(self.threads):
            evaluation = self.task.train(self._build(architecture, seed), self.epochs, seed=seed, progress=watch)
        if watch.outlook is None:
            return evaluation
        found = {"predicted": watch.outlook.mean, "to_beat": watch.outlook.to_beat}
        evaluation = replace(evaluation, metrics={**evaluation.metrics, **found})
        if audited:
            return evaluation
        return replace(
            evaluation, quality=watch.outlook.mean, quality_std=watch.outlook.std, stopped_at=evaluation.budget
        )

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "rule": self.rule.settings(), "audit": self.audit}

    def _attributes(self, genotypes: Genotypes) -> FloatArray:
        """Choices and work of architectures ``(N, A)``."""
        costs = self.space.costs(genotypes)
        work = np.log1p(np.stack([costs.macs, costs.parameters], axis=1, dtype=np.float64))
        choices = one_hot(self.space, genotypes) if choice_names(self.space) else np.zeros((len(genotypes), 0))
        return np.concatenate([work, choices], axis=1, dtype=np.float64)


@dataclass(frozen=True)
class _Known:
    """Trainings that ran to their end, and what is needed to beat each of them ``(N,)``."""

    ended: Ended
    to_beat: FloatArray

    @classmethod
    def nothing(cls, epochs: int) -> _Known:
        return cls(Ended(np.zeros((0, epochs)), np.zeros((0, 0))), np.zeros(0))

    def ranked(self, rank: int) -> float:
        """What the ``rank``-th of those that are hardest to beat asks for."""
        needed = np.sort(self.to_beat)[::-1]
        return float(needed[rank - 1]) if len(needed) >= rank else -math.inf


class _Watch:
    """Follows a training and ends it by the rule; ``outlook`` is what was expected when the rule first said stop."""

    def __init__(
        self, rule: StoppingRule, past: _Known, attributes: FloatArray, audited: bool, following: Progress
    ) -> None:
        self._rule, self._past, self._attributes = rule, past, attributes
        self._audited, self._following = audited, following
        self._curve: list[float] = []
        self.outlook: Outlook | None = None

    def __call__(self, spent: float, metric: float) -> None:
        self._curve.append(metric)
        self._following(spent, metric)
        if self.outlook is not None:
            return
        to_beat = self._past.ranked(self._rule.rank)
        outlook = self._rule.outlook(self._past.ended, np.array(self._curve), self._attributes, to_beat)
        if outlook is not None and outlook.stop:
            self.outlook = outlook
            if not self._audited:
                raise StopTraining
