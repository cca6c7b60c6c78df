"""How far a study is, read from its ledger while others may be writing to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ..records import StudySummary
from ..schema import Record, read_json
from .ledger import Counts
from .study import evaluation_costs_s
from .study_view import StudyView, open_study
from .summary import SUMMARY_FILE
from .trained_model import TrainedModel


@dataclass(frozen=True)
class StudyStatus(Record):
    """Progress, spend, best so far and time left.

    Args:
        left_s: Rough seconds of evaluations left, over all workers; None before the first one.
    """

    SCHEMA: ClassVar[str] = "gnomon.study_status/1"

    name: str
    folder: str
    phase: str
    target: int
    metric: str
    counts: Counts = field(default_factory=Counts)
    limit_ms: float | None = None
    limit_text: str = ""
    best_quality: float | None = None
    best_latency_ms: float | None = None
    evaluating_s: float = 0.0
    left_s: float | None = None
    models: int = 0


def study_status(folder: Path) -> StudyStatus:
    """The status of the study in ``folder``.

    Raises:
        StudyError: If it holds none, or the ledger is damaged.
    """
    view = open_study(folder)
    ledger, problem = view.ledger, view.problem
    counts, history = ledger.counts(), ledger.history()
    costs = evaluation_costs_s(ledger.frozen_trials())
    remaining = max(0, view.study.evaluations - counts.spent)
    feasible = [t for t in history.evaluated if t.violation <= 0 and t.quality is not None]
    best = max(feasible, key=lambda t: t.quality or 0.0, default=None)
    latency = None if best is None or problem is None else float(problem.latency.predict_mean(best.genotype[None])[0])
    trained = [read_json(path, TrainedModel.SCHEMA) for path in sorted(folder.glob("models/*/trained.json"))]
    return StudyStatus(
        name=view.study.name,
        folder=str(folder.absolute()),
        phase=_phase(folder, problem is None, remaining, view.finalise.enabled),
        target=view.study.evaluations,
        metric="quality",
        counts=counts,
        limit_ms=None if problem is None else problem.limit_ms,
        limit_text=_limit_text(view),
        best_quality=None if best is None else best.quality,
        best_latency_ms=latency,
        evaluating_s=float(sum(costs)),
        left_s=sum(costs) / len(costs) * remaining / view.study.workers if costs else None,
        models=sum(not model["error"] for model in trained),
    )


def _limit_text(view: StudyView) -> str:
    limit = view.objective.limit
    if view.problem is not None and view.problem.limit_ms is not None:
        share = "" if limit.share is None else f"{limit.share:.0%} of {limit.reference or 'the reference network'}: "
        return f"{share}{view.problem.limit_ms:.4g} ms"
    if limit.share is not None:
        return f"{limit.share:.0%} of {limit.reference or 'the reference network'}, not measured yet"
    return "none" if limit.latency_ms is None else f"{limit.latency_ms:.4g} ms"


def _phase(folder: Path, uncalibrated: bool, remaining: int, finalising: bool) -> str:
    if uncalibrated:
        return "measuring references"
    if remaining:
        return "searching"
    summary = folder / SUMMARY_FILE
    if summary.is_file() and read_json(summary, StudySummary.SCHEMA)["finished"]:
        return "finished"
    return "finalising" if finalising else "searched"
