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
            is a loss negates it).
        metrics: Further figures by name, for example ``loss``.
        budget: What was spent, in the evaluator's unit (``budget_unit``).
        cost_s: Seconds it took.
        curve: The metric after each unit of budget.
    """

    SCHEMA: ClassVar[str] = "gnomon.evaluation/1"

    quality: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    budget: float = 0.0
    budget_unit: str = "epochs"
    cost_s: float = 0.0
    seed: int = 0
    curve: tuple[float, ...] = ()
