"""The inner loop: NSGA-II over arrays of candidates, on predictions alone.

Shapes: N candidates, D decisions, M losses. No Python loop runs over candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..search_spaces import Genotypes, SearchSpace
from ..search_spaces.variation import distinct, offspring
from .pareto import best

FloatArray = npt.NDArray[np.float64]
Score: TypeAlias = Callable[[Genotypes], tuple[FloatArray, FloatArray]]
"""Canonical rows ``(N, D)`` to predicted losses ``(N, M)`` and violation ``(N,)``."""


@dataclass(frozen=True)
class Population:
    """Distinct canonical rows ``(N, D)``, their losses ``(N, M)`` and violation ``(N,)``."""

    genotypes: Genotypes
    losses: FloatArray
    violation: FloatArray

    def __len__(self) -> int:
        return len(self.genotypes)

    def select(self, index: npt.NDArray[np.int64]) -> Population:
        return Population(self.genotypes[index], self.losses[index], self.violation[index])

    def join(self, other: Population) -> Population:
        return Population(
            np.concatenate([self.genotypes, other.genotypes]),
            np.concatenate([self.losses, other.losses]),
            np.concatenate([self.violation, other.violation]),
        )


def evolve(
    space: SearchSpace,
    score: Score,
    start: Genotypes,
    rng: np.random.Generator,
    *,
    population: int = 1000,
    generations: int = 12,
    crossover_rate: float = 0.9,
    mutation_rate: float | None = None,
) -> Population:
    """NSGA-II (Deb et al. 2002) with constraint dominance, on predictions.

    Departs from the paper in that children equal to a member of the population are dropped before
    they are scored, so that every survivor is distinct.

    Args:
        space: Gives mutation, crossover and canonical rows.
        score: Predicted losses and violation.
        start: Canonical rows to begin with, at least one.
        rng: Of everything random.
        population: Survivors of each generation, and children made from them.
        generations: Times that children are made.
        crossover_rate: Share of children with two parents.
        mutation_rate: See ``SearchSpace.mutate``.
    """
    rows = distinct(space, start)
    survivors = _survive(Population(rows, *score(rows)), population)
    for _ in range(generations):
        children = offspring(
            space,
            survivors.genotypes,
            population,
            rng,
            crossover_rate=crossover_rate,
            mutation_rate=mutation_rate,
            tournament=2,
            known=space.algebra.hashes(survivors.genotypes),
        )
        if len(children):
            survivors = _survive(survivors.join(Population(children, *score(children))), population)
    return survivors


def _survive(candidates: Population, n: int) -> Population:
    """The ``n`` best, in order of constrained rank and crowding."""
    return candidates.select(best(candidates.losses, candidates.violation, n))
