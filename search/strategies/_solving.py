"""A decision that is not searched but solved: the largest choice that meets the limit.

Shapes: N architectures, D decisions, C choices.
"""

from __future__ import annotations

import numpy as np

from ...errors import StrategyError
from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ..problem import Problem


def check_solvable(space: SearchSpace, decision: str) -> int:
    """The gene's column.

    Raises:
        StrategyError: If the space has no such ordered decision that every architecture makes.
    """
    allowed = [each.name for each in space.decisions if each.ordered and not each.active_when]
    if decision not in allowed:
        raise StrategyError(
            "not an ordered decision of every architecture",
            field="strategy.solve_last",
            value=decision,
            allowed=allowed,
        )
    return space.algebra.index[decision]


def solved_last(problem: Problem, genotypes: Genotypes, decision: str) -> Genotypes:
    """Rows ``(N, D)`` with the largest choice with which the limit holds with its confidence; with the smallest choice
    where none does. Choices are taken to be in ascending order.

    How Nemotron-Flash (2511.18890, Section 3.3) finds the hidden size of each candidate, after all else is chosen.
    """
    column = check_solvable(problem.space, decision)
    choices = len(problem.space.decisions[column].choices)
    rows: Genotypes = np.repeat(genotypes, choices, axis=0)
    rows[:, column] = np.tile(np.arange(choices, dtype=GENE_DTYPE), len(genotypes))
    rows = problem.space.canonical(rows)
    holds = (problem.violation(rows) <= 0).reshape(len(genotypes), choices)
    largest = np.where(holds.any(axis=1), choices - 1 - holds[:, ::-1].argmax(axis=1), 0)
    return rows[np.arange(len(genotypes)) * choices + largest]
