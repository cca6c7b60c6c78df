"""Single-path sampling: each step trains what was drawn, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ConfigError
from ...search_spaces import SearchSpace
from .rule import Lesson, Schedule, TrainingRule
from .sampling import Sampler


@dataclass(frozen=True)
class SinglePath(TrainingRule):
    """Trains randomly drawn networks on the task's own loss (Guo and others, 1904.00420).

    A step costs about what a step of the drawn network alone costs.

    Args:
        networks: Drawn a step; the mean of their losses is learnt.
        sampling: ``uniform``, ``fair`` or ``macs``, see :mod:`.sampling`.
    """

    name: ClassVar[str] = "single_path"

    networks: int = 1
    sampling: str = "uniform"

    def __post_init__(self) -> None:
        if self.networks < 1:
            raise ConfigError("out of range", field="quality.rule.networks", value=self.networks, allowed="from 1")

    def schedule(self, space: SearchSpace, total_steps: int, seed: int) -> Schedule:
        return _SinglePath(Sampler(space, self.sampling, seed), self.networks)


class _SinglePath(Schedule):
    def __init__(self, sampler: Sampler, networks: int) -> None:
        self._sampler, self._networks = sampler, networks

    def lessons(self, step: int) -> Sequence[Lesson]:
        rows = self._sampler.draw(step, self._networks)
        return [Lesson(row, truth=1 / self._networks) for row in rows]
