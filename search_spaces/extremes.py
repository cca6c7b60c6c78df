"""The largest and the smallest architecture of any space, by multiply-accumulates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .algebra import GENE_DTYPE, Genotypes
from .base import SearchSpace

MAX_PASSES = 100


def largest(space: SearchSpace) -> Genotypes:
    """The row ``(D,)`` of most MACs, of several such rows one with most parameters; see :func:`extreme`."""
    return extreme(space, +1)


def smallest(space: SearchSpace) -> Genotypes:
    """The row ``(D,)`` of fewest MACs, of several such rows one with fewest parameters; see :func:`extreme`."""
    return extreme(space, -1)


def extreme(space: SearchSpace, sign: int) -> Genotypes:
    """The row ``(D,)`` that one cannot make larger (``sign`` 1) or smaller (-1) by changing one decision.

    Found from the analytic costs by changing whatever single decision changes them most, starting from the extreme
    choices of ordered decisions. Exact where each decision's cheapest choice does not depend on the others', which
    holds for widths, depths, kernels and operations; deterministic.
    """
    last = space.algebra.cardinalities - 1
    ordered = np.array([d.ordered for d in space.decisions])
    starts = np.stack([np.where(ordered, last, 0), np.zeros_like(last), last]).astype(GENE_DTYPE)
    starts = space.canonical(starts)
    return max((_climb(space, row, sign) for row in starts), key=lambda row: _sizes(space, row[None], sign)[0])


def neutral_decisions(space: SearchSpace, row: Genotypes) -> npt.NDArray[np.bool_]:
    """Which decisions ``(D,)`` change neither MACs nor parameters of ``row``, whatever their choice, alone: a
    shortcut, for example. They say nothing of the network's size, and an extreme has no say in them."""
    active = space.algebra.active(row[None])[0]
    size = _sizes(space, row[None], 1)[0]
    neutral = np.zeros(len(space.decisions), dtype=bool)
    for gene, cardinality in enumerate(space.algebra.cardinalities):
        rows = np.repeat(row[None], cardinality, axis=0)
        rows[:, gene] = np.arange(cardinality)
        neutral[gene] = active[gene] and all(other == size for other in _sizes(space, space.canonical(rows), 1))
    return neutral


def _climb(space: SearchSpace, row: Genotypes, sign: int) -> Genotypes:
    best = _sizes(space, row[None], sign)[0]
    for _ in range(MAX_PASSES):
        neighbours = _neighbours(space, row)
        sizes = _sizes(space, neighbours, sign)
        found = max(range(len(sizes)), key=lambda i: sizes[i], default=None)
        if found is None or sizes[found] <= best:
            break
        row, best = neighbours[found], sizes[found]
    return row


def _neighbours(space: SearchSpace, row: Genotypes) -> Genotypes:
    """All canonical rows ``(N, D)`` that differ from ``row`` in one decision."""
    rows = []
    for gene, cardinality in enumerate(space.algebra.cardinalities):
        for choice in range(cardinality):
            if choice != row[gene]:
                rows.append(row.copy())
                rows[-1][gene] = choice
    return space.canonical(np.stack(rows)) if rows else row[None][:0]


def _sizes(space: SearchSpace, rows: Genotypes, sign: int) -> list[tuple[float, float]]:
    if not len(rows):
        return []
    costs = space.costs(rows)
    return [(sign * float(m), sign * float(p)) for m, p in zip(costs.macs, costs.parameters, strict=True)]
