"""How the weights were trained that all evaluations of a study share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..schema import Record


@dataclass(frozen=True)
class ChoiceCount(Record):
    """How many trained networks had each choice of a decision.

    Args:
        decision: Its name.
        choices: As text, in the decision's order.
        trained: Networks of which this choice was a part, beside ``choices``.
    """

    decision: str
    choices: tuple[str, ...]
    trained: tuple[int, ...]

    @property
    def imbalance(self) -> float | None:
        """Most over least trained choice: 1 is perfectly fair; None if one was never trained."""
        return max(self.trained) / min(self.trained) if min(self.trained) else None


@dataclass(frozen=True)
class SharedTraining(Record):
    """The training of a supernet, as reports show it.

    Args:
        rule: Name of the training rule.
        epochs, steps: Done.
        networks: Trained in all steps together; a sandwich trains several a step.
        seconds: Of training and scoring, over all sessions.
        metric: Name of the figure in ``curves``.
        curves: After each epoch, the metric on validation by network: ``largest``, ``smallest``.
        losses: Mean training loss of each epoch (of all networks, weighted as they were learnt).
        choices: How often each choice was trained.
        identity: What the training was, as JSON.
        errors: Of parts that learnt by themselves, by name: the mean training loss of each epoch.
    """

    SCHEMA: ClassVar[str] = "gnomon.shared_training/1"

    rule: str
    epochs: int
    steps: int
    networks: int
    seconds: float
    metric: str
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    choices: tuple[ChoiceCount, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
