"""How many architectures a space holds, and which: counted and listed through the conditions.

A decision that is inactive has one value instead of all its choices, so the product of the
choices counts too many. Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ..errors import SpaceError
from .algebra import GENE_DTYPE, GenotypeAlgebra, Genotypes

MAX_STATES = 20_000


def count_canonical(algebra: GenotypeAlgebra) -> int | None:
    """The exact number of canonical rows, or None where counting would take too long.

    Decisions are taken in order. What is kept is the number of prefixes for each combination of
    those genes that a later condition still reads (variable elimination), so that a space with
    thousands of decisions counts fast as long as few conditions reach far.
    """
    readers = _last_readers(algebra)
    states: dict[tuple[tuple[int, int], ...], int] = {(): 1}
    for gene, cardinality in enumerate(algebra.cardinalities.tolist()):
        following: dict[tuple[tuple[int, int], ...], int] = defaultdict(int)
        for state, count in states.items():
            genes = dict(state)
            kept = tuple((g, v) for g, v in state if readers[g] > gene)
            is_read_later = readers[gene] > gene
            if not _is_active(algebra, gene, genes):
                following[(*kept, (gene, -1)) if is_read_later else kept] += count
            elif is_read_later:
                for value in range(cardinality):
                    following[(*kept, (gene, value))] += count
            else:
                following[kept] += count * cardinality
        if len(following) > MAX_STATES:
            return None
        states = following
    return sum(states.values())


def _last_readers(algebra: GenotypeAlgebra) -> list[int]:
    """For each gene the last gene whose condition reads it, -1 if none does."""
    readers = [-1] * len(algebra.decisions)
    for gene, decision in enumerate(algebra.decisions):
        for parent in decision.active_when:
            readers[algebra.index[parent]] = gene
    return readers


def _is_active(algebra: GenotypeAlgebra, gene: int, genes: dict[int, int]) -> bool:
    for parent, allowed in algebra.decisions[gene].active_when.items():
        index = algebra.index[parent]
        value = genes[index]
        if value < 0 or algebra.decisions[index].choices[value] not in allowed:
            return False
    return True


def enumerate_canonical(algebra: GenotypeAlgebra, limit: int) -> Genotypes:
    """All canonical rows ``(N, D)`` in lexicographic order.

    Raises:
        SpaceError: If there are more than ``limit``.
    """
    rows = np.zeros((1, len(algebra.decisions)), dtype=GENE_DTYPE)
    for gene, cardinality in enumerate(algebra.cardinalities.tolist()):
        repeats = np.where(algebra.active(rows)[:, gene], cardinality, 1)
        if repeats.sum() > limit:
            raise SpaceError(
                "the space is too large to list", field="limit", value=limit, allowed=f"at least {repeats.sum():,}"
            )
        starts = np.cumsum(repeats) - repeats
        values = np.arange(repeats.sum()) - np.repeat(starts, repeats)
        rows = np.repeat(rows, repeats, axis=0)
        rows[:, gene] = values
    return rows
