"""The contract of a training rule: which networks of a supernet learn at a step, and from what.

Shapes: D decisions.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ...search_spaces import Genotypes, SearchSpace


@dataclass(frozen=True)
class Lesson:
    """What one network learns at one step.

    Args:
        genotype: The network, a canonical row ``(D,)``.
        truth: Weight of the task's loss.
        teacher: Weight of the divergence from the teacher's soft targets.
        dropout: Whether dropout is on.
    """

    genotype: Genotypes
    truth: float = 1.0
    teacher: float = 0.0
    dropout: bool = True


class Schedule(ABC):
    """A rule for one space, seed and number of steps."""

    teacher_is_first: ClassVar[bool] = False
    """Whether a step's first network teaches the others of this step."""

    @property
    def teacher_step(self) -> int | None:
        """The step before which the largest network is frozen as the teacher of all later ones; None for never."""
        return None

    @property
    def sort_step(self) -> int | None:
        """The step before which channels are sorted by importance and a new optimiser begins; None for never."""
        return None

    def period(self, step: int) -> tuple[int, int] | None:
        """First and last step (exclusive) of the schedule of learning rates that ``step`` belongs to; None for one
        schedule over the whole training."""
        return None

    @abstractmethod
    def lessons(self, step: int) -> Sequence[Lesson]:
        """What is learnt at a step; their gradients are added. A pure function of (seed, step), so that a training
        that goes on after a kill does what it would have done."""


class TrainingRule(ABC):
    """A way to train a supernet: a frozen dataclass of JSON arguments, named by ``_target_``."""

    name: ClassVar[str]

    @abstractmethod
    def schedule(self, space: SearchSpace, total_steps: int, seed: int) -> Schedule:
        """The rule for one training."""

    def to_dict(self) -> dict[str, Any]:
        """Name and arguments as JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        return {"name": self.name, **plain}
