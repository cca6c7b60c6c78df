"""The contract of a strategy: from history to the next architectures.

Shapes: n proposed architectures, D decisions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..search_spaces import Genotypes, SearchSpace
from .history import History
from .problem import Problem

if TYPE_CHECKING:
    from ..tasks import Progress, Task


@dataclass(frozen=True)
class Proposal:
    """Architectures to evaluate, and what the strategy must remember.

    Args:
        genotypes: Canonical rows ``(n, D)``. A row equal to an evaluated one costs nothing: the
            ledger copies the known values, so that population samplers see their child. A row
            equal to a pending or failed one is dropped.
        state: Small JSON, handed back as ``history.state``. None keeps no state.
        attributes: JSON per row (or empty), handed back as ``Trial.attributes``.
    """

    genotypes: Genotypes
    state: Mapping[str, Any] | None = None
    attributes: tuple[Mapping[str, Any], ...] = field(default=())


class Strategy(ABC):
    """Proposes architectures. Runs ``gnomon.testing.StrategySuite``.

    A strategy keeps nothing between calls that it cannot rebuild: ``propose`` is a function of
    (problem, history, n, rng), so that one rebuilt from the ledger at every step does what one
    that lived throughout does. Constructor arguments are settings only.
    """

    name: ClassVar[str]
    max_objectives: ClassVar[int | None] = None
    """Most objective values it can handle; None for any."""

    def check(self, space: SearchSpace) -> None:  # noqa: B027
        """Called before anything is measured or trained; whatever a setting needs of the space is looked for here.

        Raises:
            StrategyError: If the space is not one that it can search with its settings.
        """

    @abstractmethod
    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        """At most ``n`` architectures. ``rng`` is seeded from (run seed, ``history.step``).

        Proposing nothing new for several steps is allowed; the run loop then fills up with random
        unseen architectures, and ends the search when the space is exhausted.

        Raises:
            StrategyError: If the problem is of a kind it cannot solve.
        """

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON, part of the study's identity."""
        return {}


class TrainedStrategy(Strategy):
    """A strategy that trains before it proposes, such as a differentiable search.

    The loop calls :meth:`run` once before the first proposal, one worker at a time; later workers find everything done.
    ``propose`` is then a function of what was trained, and of (problem, history, n, rng), as any other's.
    """

    @abstractmethod
    def run(
        self, problem: Problem, task: Task, checkpoint: Path, *, seed: int, progress: Progress | None = None
    ) -> float:
        """Trains, goes on with a training that was killed, or takes a finished one; the seconds it took in all.

        Deterministic by seed.

        Args:
            problem: What is searched.
            task: Its data and recipe.
            checkpoint: A folder of its own in the study's, for whatever it keeps.
            seed: The study's.
            progress: Called with (epochs, metric so far).

        Raises:
            GnomonError: If it fails; the same command goes on where it was.
        """
