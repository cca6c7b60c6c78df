"""The sandwich rule: each step trains the largest network, the smallest and some others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ConfigError
from ...search_spaces import GENE_DTYPE, SearchSpace
from ...search_spaces.extremes import neutral_decisions
from .rule import Lesson, Schedule, TrainingRule
from .sampling import Sampler


@dataclass(frozen=True)
class Sandwich(TrainingRule):
    """Each step trains the largest network, the smallest and ``random`` others (slimmable networks, 1903.05134), the
    others also on the largest one's soft targets if ``distillation`` is set (BigNAS, 2003.11142).

    By default they are not: a largest network that knows nothing yet teaches the others to say the same of every
    example, and as they share its weights, it is held there, too. That is overcome in trainings of many epochs only.

    Decisions that change neither MACs nor parameters (a shortcut) are drawn for both ends, too; otherwise one of their
    choices would be trained several times as often as the others, and be judged too well.

    As in the paper, only the largest network has dropout. Unlike there, the mean of the losses is learnt, not their
    sum, so that a learning rate suits any number of networks; and weight decay is everybody's.

    Args:
        random: Networks beside the largest and the smallest.
        distillation: Share of the soft targets in what the others learn, 0 (the task's loss only) to 1 (as in BigNAS).
        sampling: ``uniform``, ``fair`` or ``macs``, see :mod:`.sampling`.
    """

    name: ClassVar[str] = "sandwich"

    random: int = 2
    distillation: float = 0.0
    sampling: str = "uniform"

    def __post_init__(self) -> None:
        if self.random < 0:
            raise ConfigError("out of range", field="quality.rule.random", value=self.random, allowed="from 0")
        if not 0 <= self.distillation <= 1:
            raise ConfigError(
                "out of range", field="quality.rule.distillation", value=self.distillation, allowed="0 to 1"
            )

    def schedule(self, space: SearchSpace, total_steps: int, seed: int) -> Schedule:
        return _Sandwich(Sampler(space, self.sampling, seed), self)


class _Sandwich(Schedule):
    teacher_is_first = True

    def __init__(self, sampler: Sampler, rule: Sandwich) -> None:
        self._sampler, self._rule = sampler, rule
        self._ends = [(row, neutral_decisions(sampler.space, row)) for row in (sampler.largest, sampler.smallest)]

    def lessons(self, step: int) -> Sequence[Lesson]:
        rule, sampler = self._rule, self._sampler
        draws = sampler.draw(step, 2 + rule.random)
        largest, smallest = (
            sampler.space.canonical(np.where(neutral, draw, row).astype(GENE_DTYPE)[None])[0]
            for (row, neutral), draw in zip(self._ends, draws[:2], strict=True)
        )
        others = [smallest, *draws[2:]]
        share = 1 / (1 + len(others))
        truth, teacher = share * (1 - rule.distillation), share * rule.distillation
        return [Lesson(largest, share), *(Lesson(row, truth, teacher, dropout=False) for row in others)]
