"""Progressive shrinking: first the full network, then kinds of choices are opened one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from ...errors import ConfigError
from ...search_spaces import SearchSpace
from .rule import Lesson, Schedule, TrainingRule
from .sampling import Open, Sampler

PHASES = (("*kernel*",), ("*depth*", "*layers*"), ("*",))


@dataclass(frozen=True)
class Progressive(TrainingRule):
    """Trains the largest network alone, freezes a copy of it as the teacher of all others, and then draws networks
    from a space that grows by one kind of decision a phase (Once-for-All, 1908.09791).

    Decisions that are not open yet have the largest network's choices. As in the paper each phase has its own schedule
    of learning rates, here with the same peak; the paper also opens depth and expansion in two steps each. Before the
    last phase, in which by default widths open, channels are sorted by importance (their L1 norm).

    Args:
        phases: For each phase the patterns (``*`` stands for anything) of the decisions that it opens. Decisions
            that no pattern names open in the last phase.
        shares: Of all steps: of the full network alone, then of each phase.
        networks: Drawn a step; the mean of their losses is learnt.
        distillation: Weight of the soft targets beside the task's loss, which has 1.
        sort: Whether channels are sorted.
        sampling: ``uniform``, ``fair`` or ``macs``, see :mod:`.sampling`.
    """

    name: ClassVar[str] = "progressive"

    phases: Sequence[Sequence[str]] = PHASES
    shares: Sequence[float] = (0.25, 0.25, 0.25, 0.25)
    networks: int = 2
    distillation: float = 1.0
    sort: bool = True
    sampling: str = "uniform"

    def __post_init__(self) -> None:
        if self.networks < 1:
            raise ConfigError("out of range", field="quality.rule.networks", value=self.networks, allowed="from 1")
        if self.distillation < 0:
            raise ConfigError(
                "out of range", field="quality.rule.distillation", value=self.distillation, allowed="from 0"
            )
        if not self.phases or any(isinstance(phase, str) for phase in self.phases):
            raise ConfigError(
                "no phases", field="quality.rule.phases", value=self.phases, allowed="a list of lists of patterns"
            )
        valid = len(self.shares) == len(self.phases) + 1 and min(self.shares) > 0 and abs(sum(self.shares) - 1) < 1e-6
        if not valid:
            raise ConfigError(
                "not the shares of the full network and of each phase",
                field="quality.rule.shares",
                value=list(self.shares),
                allowed=f"{len(self.phases) + 1} positive numbers whose sum is 1",
            )

    def schedule(self, space: SearchSpace, total_steps: int, seed: int) -> Schedule:
        return _Progressive(Sampler(space, self.sampling, seed), self, total_steps)


class _Progressive(Schedule):
    def __init__(self, sampler: Sampler, rule: Progressive, total_steps: int) -> None:
        self._sampler, self._rule = sampler, rule
        self._total_steps = total_steps
        self._starts = np.round(np.cumsum(rule.shares)[:-1] * total_steps).astype(int)
        self._open = _opened(sampler.space, rule.phases)

    @property
    def teacher_step(self) -> int:
        return int(self._starts[0])

    @property
    def sort_step(self) -> int | None:
        return int(self._starts[-1]) if self._rule.sort else None

    def period(self, step: int) -> tuple[int, int]:
        limits = [0, *self._starts.tolist(), self._total_steps]
        phase = self._phase(step)
        return limits[phase], limits[phase + 1]

    def _phase(self, step: int) -> int:
        """0 for the full network alone."""
        return int(np.searchsorted(self._starts, step, side="right"))

    def lessons(self, step: int) -> Sequence[Lesson]:
        phase = self._phase(step)
        if phase == 0:
            return [Lesson(self._sampler.largest)]
        rule = self._rule
        scale = rule.networks * (1 + rule.distillation)
        rows = self._sampler.draw(step, rule.networks, self._open[phase - 1])
        return [Lesson(row, 1 / scale, rule.distillation / scale) for row in rows]


def _opened(space: SearchSpace, phases: Sequence[Sequence[str]]) -> list[Open]:
    """For each phase, which decisions are open in it.

    Raises:
        ConfigError: If a pattern names no decision, unless it is one of the defaults.
    """
    names = [d.name for d in space.decisions]
    usual = {pattern for phase in PHASES for pattern in phase}
    result: list[Open] = []
    opened = np.zeros(len(names), dtype=bool)
    for phase in phases:
        for pattern in phase:
            found = np.array([fnmatchcase(name, pattern) for name in names])
            if not found.any() and pattern not in usual:
                raise ConfigError(
                    "names no decision of this space", field="quality.rule.phases", value=pattern, allowed=names
                )
            opened = opened | found
        result.append(opened)
    result[-1] = np.ones(len(names), dtype=bool)
    return result
