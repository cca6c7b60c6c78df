"""From a ledger and its models to the record that reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from ..predictors.evaluate import leave_one_out
from ..records import ModelRow, ReferenceRow, StudySummary, TrialRow
from ..schema import read_json, write_json
from .calibrate import Calibration
from .early_stopping_notes import early_stopping_notes
from .history import History
from .ledger import Ledger
from .pareto import hypervolume, non_dominated, reference_point
from .problem import Problem
from .setup import Components

SUMMARY_FILE = "study.json"
MIN_TRIALS_FOR_IMPORTANCE = 8


def summarise(
    ledger: Ledger,
    problem: Problem,
    components: Components,
    calibration: Calibration,
    models: Sequence[ModelRow],
    *,
    finished: bool,
    spend: Mapping[str, float],
) -> StudySummary:
    """Everything worth knowing of a study, finished or not."""
    from .. import __version__

    frozen = ledger.frozen_trials()
    history = ledger.history(frozen)
    return StudySummary(
        name=components.study.name,
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        space=components.space.name,
        task={"name": components.task.name, **components.task.identity()},
        metric=components.task.metric,
        setting=calibration.setting,
        fingerprint=calibration.fingerprint,
        statistic=components.device.statistic,
        strategy=components.strategy.name,
        predictor=_predictor_text(components),
        seed=components.study.seed,
        values=problem.objective.names,
        directions=problem.objective.directions,
        confidence=problem.objective.limit.confidence,
        limit_ms=problem.limit_ms,
        limit_text=_limit_text(problem, calibration),
        trials=_trial_rows(frozen, history, components.task.metric),
        references=_reference_rows(components, calibration),
        models=tuple(models),
        hypervolume=_progress(history),
        importance=_importance(ledger.study),
        spend=spend,
        notes=(*_notes(components, calibration, models), *early_stopping_notes(frozen)),
        config=OmegaConf.to_yaml(OmegaConf.create(dict(components.config))),
        recorded=not components.evaluator.has_weights,
        shared_training=components.evaluator.shared_training(),
        finished=finished,
    )


def refresh(summary: StudySummary, ledger: Ledger, problem: Problem, spend: Mapping[str, float]) -> StudySummary:
    """``summary`` with what the ledger holds now; its models stay as they are."""
    frozen = ledger.frozen_trials()
    history = ledger.history(frozen)
    return replace(
        summary,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        limit_ms=problem.limit_ms,
        trials=_trial_rows(frozen, history, summary.metric),
        hypervolume=_progress(history),
        importance=_importance(ledger.study),
        spend=spend,
        finished=False,
    )


def save(summary: StudySummary, folder: Path) -> None:
    """Writes ``study.json`` into the study's folder, atomically."""
    write_json(folder / SUMMARY_FILE, StudySummary.SCHEMA, summary.to_dict())


def read_summary(path: Path) -> StudySummary:
    """What :func:`save` wrote.

    Raises:
        SchemaError: If it is damaged or of another schema.
    """
    return StudySummary.from_dict({"schema": StudySummary.SCHEMA, **read_json(path, StudySummary.SCHEMA)})


def _limit_text(problem: Problem, calibration: Calibration) -> str:
    limit = problem.objective.limit
    if problem.limit_ms is None:
        return "no latency limit"
    if limit.share is None:
        return f"{problem.limit_ms:.4g} ms"
    return f"{limit.share:.0%} of {calibration.reference} ({calibration.reference_ms:.4g} ms measured here)"


def _trial_rows(frozen: Sequence[FrozenTrial], history: History, metric: str) -> tuple[TrialRow, ...]:
    feasible = [t for t in history.evaluated if t.violation <= 0]
    front = set()
    if feasible:
        mask = non_dominated(np.array([t.losses for t in feasible]))
        front = {t.number for t, on in zip(feasible, mask, strict=True) if on}
    return tuple(
        _trial_row(row, metric, trial.violation <= 0, trial.number in front)
        for row, trial in zip(frozen, history.trials, strict=True)
    )


def _trial_row(frozen: FrozenTrial, metric: str, feasible: bool, on_front: bool) -> TrialRow:
    """A trial as reports show it: by the task's metric, also where the search ranked by something else."""
    user: Mapping[str, Any] = frozen.user_attrs
    evaluation = user.get("evaluation", {})
    stopped_at = evaluation.get("stopped_at")
    reached = evaluation.get("metrics", {}) if stopped_at is None else {}
    duplicate = user.get("duplicate_of")
    return TrialRow(
        number=frozen.number,
        key=user["architecture"],
        state={TrialState.FAIL: "failed"}.get(frozen.state, frozen.state.name.lower()),
        quality=reached.get(metric, evaluation.get("quality")),
        latency_ms=user["latency_ms"],
        latency_std_ms=user["latency_std_ms"],
        values=tuple(frozen.values or ()),
        feasible=feasible,
        on_front=on_front,
        duplicate_of=duplicate,
        cost_s=0.0 if duplicate is not None else evaluation.get("cost_s", 0.0),
        error=user.get("error"),
        stopped_at=stopped_at,
    )


def _reference_rows(components: Components, calibration: Calibration) -> tuple[ReferenceRow, ...]:
    space = components.space
    rows = np.stack([space.algebra.from_key(key) for key in calibration.keys])
    latencies = np.array(calibration.latencies_ms)
    mean, std = leave_one_out(components.predictor, rows, latencies)
    names = {space.keys(space.genotype(config)[None])[0]: name for name, config in space.named.items()}
    return tuple(
        ReferenceRow(key, float(latency), float(m), float(s), names.get(key, ""))
        for key, latency, m, s in zip(calibration.keys, latencies, mean, std, strict=True)
    )


def _progress(history: History) -> tuple[tuple[int, float], ...]:
    """Hypervolume after each distinct evaluation, as a share of the final one. The reference point
    is the worst of all that was evaluated, so shares of different studies do not compare."""
    feasible = history.violation <= 0
    if not feasible.any():
        return ()
    reference = reference_point(history.losses[feasible])
    volumes = [hypervolume(history.losses[:n][feasible[:n]], reference) for n in range(1, len(feasible) + 1)]
    total = volumes[-1] or 1.0
    return tuple((n, float(v / total)) for n, v in enumerate(volumes, start=1))


def _importance(study: optuna.Study) -> dict[str, float]:
    """Share of the quality's variance that each decision explains (fANOVA, through Optuna), for
    decisions that every trial has."""
    complete = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if len(t.params)]
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len({t.user_attrs["evaluation"]["quality"] for t in complete}) < 2:
        return {}
    shares = optuna.importance.get_param_importances(
        study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        target=lambda t: float(t.user_attrs["evaluation"]["quality"]),
    )
    return {name: float(share) for name, share in sorted(shares.items(), key=lambda item: -item[1])}


def _notes(components: Components, calibration: Calibration, models: Sequence[ModelRow]) -> tuple[str, ...]:
    notes = [f"A reference measurement failed and was left out: {text}" for text in calibration.failed]
    doubtful = [m for m in models if m.measurement is not None and m.measurement.verdict in ("noisy", "throttled")]
    notes += [
        f"Measurement of {m.key} is {m.measurement.verdict}: its interval is wide." for m in doubtful if m.measurement
    ]
    tested = [m.test["accuracy"] for m in models if m.accepted and "accuracy" in m.test]
    if tested and max(tested) <= 1.2 / len(components.task.labels):
        notes.append("The best model is hardly better than guessing: train longer (finalise.budget, quality.epochs).")
    slowest, fastest = max(calibration.latencies_ms), min(calibration.latencies_ms)
    outside = [m for m in models if m.measurement and not fastest <= (m.measurement.median or 0.0) <= slowest]
    if outside:
        notes.append(
            f"{len(outside)} of {len(models)} models lie outside the measured references ({fastest:.4g} to "
            f"{slowest:.4g} ms): their predictions were extrapolated; their measurements were not."
        )
    if models and not any(m.on_front for m in models):
        notes.append("No model passed verification; see the reasons beside each.")
    return tuple(notes)


def _predictor_text(components: Components) -> str:
    """The predictor's class and from how many settings elsewhere it started."""
    name = str(components.config["predictor"]["_target_"]).rsplit(".", 1)[-1]
    known = len(components.predictor.learnt_from)
    return f"{name}, taught by {known} settings elsewhere" if known else name
