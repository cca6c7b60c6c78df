"""When a training is not worth finishing.

Shapes: N trainings that ended, T epochs of a whole training, t epochs seen, A attributes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, TaskError
from ...predictors.curves import CurvePredictor, CurveRegressor, NuSupportVectors
from ...predictors.curves.regressor import MIN_TRAININGS

FloatArray = npt.NDArray[np.float64]

GROWTH = 1.15
"""Regressors are fitted anew once there are so many times more ended trainings."""


@dataclass(frozen=True)
class Ended:
    """Trainings that ran to their end, in the order in which they were begun.

    Args:
        curves: The metric after each epoch ``(N, T)``; larger is better.
        attributes: Of architecture and hyper-parameters ``(N, A)``; A may be 0.
    """

    curves: FloatArray
    attributes: FloatArray

    def first(self, n: int) -> Ended:
        """The first ``n`` of them."""
        return Ended(self.curves[:n], self.attributes[:n])

    def digest(self) -> str:
        """Equal for equal trainings."""
        parts = (np.ascontiguousarray(part, dtype=np.float64) for part in (self.curves, self.attributes))
        return sha256(b"".join(str(part.shape).encode() + part.tobytes() for part in parts)).hexdigest()


@dataclass(frozen=True)
class Outlook:
    """What is expected of a training that is under way.

    Args:
        mean, std: Of its final metric.
        to_beat: What it has to beat.
        probability: That it does not.
        stop: Whether that is enough to stop it.
    """

    mean: float
    std: float
    to_beat: float
    probability: float
    stop: bool


class StoppingRule:
    """Stops a training when P(y_T <= y_best | y_1..y_t) >= Delta (Baker et al., 1705.10823, Section 4.2).

    The first trainings (``burn_in``) run to their end and teach the regressors, one for each number of epochs seen;
    later ones that run to their end join them. A decision depends on its arguments only: regressors are fitted to the
    first trainings in their order, as many as a fixed sequence allows (it grows by 15 %), so that a decision repeats
    exactly after a restart.

    Args:
        confidence: Delta.
        burn_in: Trainings that run to their end before the first one may be stopped.
        rank: A training has to beat the ``rank``-th best one, where nothing else is given to beat: above 1 for
            searches that keep several, such as Hyperband.
        first_epoch: Epochs after which a training may be stopped at the earliest.
        regressor: Of :mod:`gnomon.predictors.curves`; None for nu-SVR.
        best_possible: The metric's upper bound, for example 1.0 for an accuracy; None if it has none. See
            :class:`~gnomon.predictors.curves.CurvePredictor`.
        field: Prefix of the arguments' names in messages, such as ``quality.``.
    """

    def __init__(
        self,
        confidence: float = 0.99,
        burn_in: int = 30,
        rank: int = 1,
        first_epoch: int = 1,
        regressor: CurveRegressor | None = None,
        best_possible: float | None = None,
        *,
        field: str = "",
    ) -> None:
        check_number(f"{field}confidence", confidence, 0.5 <= confidence < 1, "0.5 to below 1")
        check_integer(f"{field}burn_in", burn_in, MIN_TRAININGS)
        check_integer(f"{field}rank", rank, 1)
        check_integer(f"{field}first_epoch", first_epoch, 1)
        if regressor is not None and not isinstance(regressor, CurveRegressor):
            raise ConfigError(
                "not a regressor",
                field=f"{field}regressor",
                value=regressor,
                allowed="a class of gnomon.predictors.curves",
            )
        if best_possible is not None:
            check_number(f"{field}best_possible", best_possible, math.isfinite(best_possible), "a number, or null")
        self.confidence, self.burn_in, self.rank, self.first_epoch = confidence, burn_in, rank, first_epoch
        self.regressor = regressor if regressor is not None else NuSupportVectors()
        self.best_possible = best_possible
        self._fitted: tuple[str, CurvePredictor] | None = None

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON."""
        return {
            "confidence": self.confidence,
            "burn_in": self.burn_in,
            "rank": self.rank,
            "first_epoch": self.first_epoch,
            "regressor": self.regressor.settings(),
            "best_possible": self.best_possible,
        }

    def outlook(
        self, ended: Ended, beginning: FloatArray, attributes: FloatArray, to_beat: float | None = None
    ) -> Outlook | None:
        """What is expected of a training after its first epochs.

        Args:
            ended: All that ran to their end, in the order in which they were begun.
            beginning: The metric after each epoch so far ``(t,)``.
            attributes: Of this training ``(A,)``.
            to_beat: None for the ``rank``-th best of those that ended.

        Returns:
            None while there is nothing to say: in the burn-in, before ``first_epoch``, after the end.

        Raises:
            TaskError: If a metric is not finite.
        """
        if not np.isfinite(beginning).all():
            raise TaskError("the metric is not finite", field="beginning", value=beginning.tolist())
        if len(ended.curves) < self.burn_in or not self.first_epoch <= len(beginning) < ended.curves.shape[1]:
            return None
        if to_beat is None:
            to_beat = self.to_beat(ended)
        found = self._predictor(ended).predict_against(to_beat, beginning[None], attributes[None])
        mean, std, probability = (float(part[0]) for part in found)
        return Outlook(mean, std, to_beat, probability, probability >= self.confidence)

    def to_beat(self, ended: Ended) -> float:
        """The ``rank``-th best final metric; minus infinity if there are not so many."""
        final = np.sort(ended.curves[:, -1])[::-1]
        return float(final[self.rank - 1]) if len(final) >= self.rank else -math.inf

    def _predictor(self, ended: Ended) -> CurvePredictor:
        """Fitted to as many of the first trainings as the sequence allows."""
        teachers = ended.first(self._count(len(ended.curves)))
        digest = teachers.digest()
        if self._fitted is None or self._fitted[0] != digest:
            predictor = CurvePredictor(self.regressor, self.best_possible).fit(teachers.curves, teachers.attributes)
            self._fitted = digest, predictor
        return self._fitted[1]

    def _count(self, n: int) -> int:
        count = self.burn_in
        while (following := max(count + 1, math.floor(count * GROWTH))) <= n:
            count = following
        return count


def is_audited(share: float, seed: int, *identity: int) -> bool:
    """Whether a training is among the ``share`` that runs to its end whatever the rule says: from seed and identity
    alone, so that it is the same after a restart and in every process."""
    return share > 0 and float(np.random.default_rng([seed, *identity]).random()) < share


def check_number(name: str, value: Any, valid: bool, allowed: str) -> None:
    """Refuses what is no number or out of range.

    Raises:
        ConfigError: With what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not valid:
        raise ConfigError("out of range", field=name, value=value, allowed=allowed)


def check_integer(name: str, value: Any, least: int) -> None:
    """Refuses what is no integer of at least ``least``.

    Raises:
        ConfigError: With what is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError("out of range", field=name, value=value, allowed=f"an integer from {least}")
