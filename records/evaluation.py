"""The quality of one architecture and what it cost to find out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ..schema import Record


@dataclass(frozen=True)
class Evaluation(Record):
    """One completed quality evaluation.

    Args:
        quality: The task's metric on the validation split, larger is better (a task whose metric
            is a loss negates it). If the training was stopped early, its predicted end.
        metrics: Further figures by name, for example ``loss``.
        budget: What was spent, in the evaluator's unit (``budget_unit``).
        cost_s: Seconds it took.
        curve: The metric after each unit of budget.
        quality_std: Standard deviation of a predicted quality; 0 for one that was reached.
        stopped_at: Budget after which the training was stopped because it could not win; None for a whole one.
    """

    SCHEMA: ClassVar[str] = "gnomon.evaluation/1"

    quality: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    budget: float = 0.0
    budget_unit: str = "epochs"
    cost_s: float = 0.0
    seed: int = 0
    curve: tuple[float, ...] = ()
    quality_std: float = 0.0
    stopped_at: float | None = None
