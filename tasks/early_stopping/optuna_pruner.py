"""The stopping rule as pruners for any Optuna study.

Shapes: N trials that ended, A columns of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner, HyperbandPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .rule import Ended, StoppingRule, check_integer, check_number, is_audited

FloatArray = npt.NDArray[np.float64]

OUTLOOK = "gnomon:outlook"
"""User attribute of a trial that was, or would have been, stopped."""


class CurvePruner(BasePruner):
    """Prunes a trial of a single-objective study when its predicted end cannot beat the best.

    For objectives that report once an epoch. The columns that the regressors see beside the curve are the trial's
    parameters: numbers (logarithms where the distribution is logarithmic) and choices. The pruner keeps nothing that
    it does not find in the study, so that any number of processes share it, and a study goes on where it was.

    What was expected of a pruned trial is its user attribute ``gnomon:outlook``.

    Args:
        epochs: Reports of a whole training. Trials that completed with fewer or more teach nothing.
        rule: Delta, burn-in and regressor; None for the default :class:`StoppingRule`.
        audit: Share of trials that run to their end though the rule would stop them: what they reach gives
            :func:`false_stops`.
        seed: Of the choice of these trials.
    """

    def __init__(self, epochs: int, rule: StoppingRule | None = None, audit: float = 0.0, seed: int = 0) -> None:
        check_integer("epochs", epochs, 2)
        check_number("audit", audit, 0 <= audit < 1, "0 to below 1")
        check_integer("seed", seed, 0)
        self.epochs, self.rule = epochs, rule if rule is not None else StoppingRule()
        self.audit, self.seed = float(audit), seed

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """See :meth:`optuna.pruners.BasePruner.prune`."""
        values = _reported(trial)
        if not values:
            return False
        if not np.isfinite(values).all():
            return True
        sign = _sign(study)
        trials = _ended(study, self.epochs)
        columns = _columns([*(t.params for t in trials), trial.params], _distributions([*trials, trial]))
        # The value may be another than the last report's: it is what has to be the best.
        curves = np.array([[*_reported(t)[:-1], t.value] for t in trials], dtype=np.float64)
        ended = Ended(sign * curves.reshape(-1, self.epochs), columns[:-1])
        outlook = self.rule.outlook(ended, sign * np.array(values), columns[-1])
        if outlook is None or not outlook.stop:
            return False
        audited = is_audited(self.audit, self.seed, trial.number)
        if OUTLOOK not in trial.user_attrs:
            found = {
                "epoch": len(values),
                "mean": sign * outlook.mean,
                "std": outlook.std,
                "to_beat": sign * outlook.to_beat,
                "audited": audited,
            }
            study._storage.set_trial_user_attr(trial._trial_id, OUTLOOK, found)
        return not audited

    def in_burn_in(self, study: Study) -> bool:
        """Whether trials still run to their end to teach the regressors."""
        return len(_ended(study, self.epochs)) < self.rule.burn_in


class HyperbandCurvePruner(HyperbandPruner):
    """Hyperband, and within it the stopping rule: a trial is pruned if either says so.

    Samplers see Hyperband's brackets. Burn-in trials run to their end. Give the rule a ``rank`` above 1 to compare
    with the n-th best: Hyperband keeps several of each rung.

    Args:
        curve: Its ``epochs`` are Hyperband's ``max_resource``; report steps from 1.
        min_resource, reduction_factor: Hyperband's.
    """

    def __init__(self, curve: CurvePruner, min_resource: int = 1, reduction_factor: int = 3) -> None:
        super().__init__(min_resource, curve.epochs, reduction_factor)
        self.curve = curve

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """See :meth:`optuna.pruners.BasePruner.prune`."""
        loses = super().prune(study, trial)  # in the burn-in, too: later trials are compared with those
        return not self.curve.in_burn_in(study) and (loses or self.curve.prune(study, trial))


@dataclass(frozen=True)
class FalseStops:
    """How often the rule was wrong, as far as that is known.

    Args:
        stopped: Trials that it pruned.
        audited: Trials that it would have pruned, and that ran to their end instead.
        wrong: Of these, those that did beat what they had to.
        expected: Mean over the stopped of the probability, under the rule's own normal error, that they would have.
    """

    stopped: int
    audited: int
    wrong: int
    expected: float

    @property
    def rate(self) -> float | None:
        """Share of the audited that were wrong; None without audits."""
        return self.wrong / self.audited if self.audited else None


def false_stops(study: Study) -> FalseStops:
    """What is known of the false stops of a study with :class:`CurvePruner`."""
    from scipy.special import ndtr

    sign = _sign(study)
    found = [t for t in study.get_trials(deepcopy=False) if OUTLOOK in t.user_attrs]
    audited = [t for t in found if t.user_attrs[OUTLOOK]["audited"] and t.state == TrialState.COMPLETE]
    stopped = [t for t in found if t.state == TrialState.PRUNED]
    wrong = sum(sign * float(t.value or 0.0) > sign * t.user_attrs[OUTLOOK]["to_beat"] for t in audited)
    chances = [
        1.0 - ndtr(sign * (o["to_beat"] - o["mean"]) / o["std"]) for o in (t.user_attrs[OUTLOOK] for t in stopped)
    ]
    return FalseStops(len(stopped), len(audited), wrong, float(np.mean(chances)) if chances else 0.0)


def _sign(study: Study) -> float:
    return 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0


def _reported(trial: FrozenTrial) -> list[float]:
    """In the order of steps."""
    return [float(trial.intermediate_values[step]) for step in sorted(trial.intermediate_values)]


def _ended(study: Study, epochs: int) -> list[FrozenTrial]:
    """Trials that ran to their end, in order of number."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [
        trial
        for trial in complete
        if len(trial.intermediate_values) == epochs
        and np.isfinite([*trial.intermediate_values.values(), float(trial.value or 0.0)]).all()
    ]


def _distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Of every parameter that any trial has, by name in alphabetical order."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        found.update(trial.distributions)
    return dict(sorted(found.items()))


def _columns(params: Sequence[Mapping[str, Any]], distributions: Mapping[str, BaseDistribution]) -> FloatArray:
    """One column a number, one a choice ``(N, A)``; a parameter that a trial lacks is 0, and a column says so."""
    columns: list[list[float]] = []
    for name, distribution in distributions.items():
        if any(name not in own for own in params):
            columns.append([float(name in own) for own in params])
        if isinstance(distribution, CategoricalDistribution):
            for choice in range(len(distribution.choices)):
                columns.append([float(name in own and _index(distribution, own[name]) == choice) for own in params])
        else:
            log = bool(getattr(distribution, "log", False))
            columns.append([_number(own.get(name), log) for own in params])
    return np.array(columns, dtype=np.float64).T.reshape(len(params), -1)


def _index(distribution: CategoricalDistribution, value: Any) -> int:
    return int(distribution.to_internal_repr(value))


def _number(value: Any, log: bool) -> float:
    if value is None:
        return 0.0
    return float(np.log(value)) if log else float(value)
