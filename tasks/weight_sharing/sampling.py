"""Which networks of a space a training step draws, from (seed, step) alone.

Shapes: N networks, D decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ...search_spaces.extremes import largest, smallest

Open: TypeAlias = npt.NDArray[np.bool_]
"""Which decisions are drawn ``(D,)``; the others have the largest network's choices."""

MACS_POOL = 16
STREAM = 0x5A
"""Tells the generators of sampling from others of the same seed."""


class Sampler:
    """Draws networks; see the functions below for the ways.

    Args:
        space: What is drawn from.
        way: One of ``SAMPLINGS``.
        seed: Of all draws.
    """

    def __init__(self, space: SearchSpace, way: str, seed: int) -> None:
        if way not in SAMPLINGS:
            raise ConfigError("unknown choice", field="quality.rule.sampling", value=way, allowed=list(SAMPLINGS))
        self.space, self.seed = space, seed
        self.largest, self.smallest = largest(space), smallest(space)
        self._draw = SAMPLINGS[way]
        self._permutation = lru_cache(maxsize=4 * len(space.decisions))(self._permuted)

    def draw(self, step: int, n: int, open_decisions: Open | None = None) -> Genotypes:
        """The ``n`` canonical rows ``(n, D)`` of a step, repeats possible."""
        return self._draw(self, step, n, open_decisions)

    def rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, step, STREAM])

    def restricted(self, genes: Genotypes, open_decisions: Open | None) -> Genotypes:
        """Canonical rows with the largest network's choices where decisions are not open."""
        if open_decisions is not None:
            genes = np.where(open_decisions, genes, self._closed).astype(GENE_DTYPE)
        return self.space.canonical(genes)

    @property
    def _closed(self) -> Genotypes:
        """The largest network's row, with the last choice of ordered decisions that are inactive in it."""
        last = self.space.algebra.cardinalities - 1
        inactive = ~self.space.algebra.active(self.largest[None])[0]
        ordered = np.array([d.ordered for d in self.space.decisions])
        closed: Genotypes = np.where(inactive & ordered, last, self.largest).astype(GENE_DTYPE)
        return closed

    def permutation(self, gene: int, cycle: int) -> npt.NDArray[np.int64]:
        """The order of a decision's choices in one cycle of ``fair`` draws."""
        return self._permutation(gene, cycle)

    def _permuted(self, gene: int, cycle: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, gene, cycle, STREAM])
        return rng.permutation(int(self.space.algebra.cardinalities[gene]))


def uniform(sampler: Sampler, step: int, n: int, open_decisions: Open | None) -> Genotypes:
    """Every choice of every decision equally often, on average.

    Not every architecture: where a depth decides how many others matter, small depths have fewer architectures than
    their share of draws, so a space's typical size and the typical draw differ.
    """
    return sampler.restricted(sampler.space.algebra.sample(n, sampler.rng(step)), open_decisions)


def fair(sampler: Sampler, step: int, n: int, open_decisions: Open | None) -> Genotypes:
    """Each choice of a decision exactly once in as many draws as it has choices (FairNAS's strict fairness,
    1907.01845), in random order; decisions that are inactive in a draw miss their turn."""
    rows = np.empty((n, len(sampler.space.decisions)), dtype=GENE_DTYPE)
    for i in range(n):
        for gene, cardinality in enumerate(sampler.space.algebra.cardinalities.tolist()):
            cycle, position = divmod(step * n + i, cardinality)
            rows[i, gene] = sampler.permutation(gene, cycle)[position]
    return sampler.restricted(rows, open_decisions)


def macs(sampler: Sampler, step: int, n: int, open_decisions: Open | None) -> Genotypes:
    """Sizes evenly from the smallest to the largest network: for each draw a target, log-uniform in MACs, and of
    a few uniform draws the nearest. Where most uniform draws are of middle size, the ends learn more this way."""
    rng = sampler.rng(step)
    pool = sampler.restricted(sampler.space.algebra.sample(n * MACS_POOL, rng), open_decisions)
    ends = np.log(sampler.space.costs(np.stack([sampler.smallest, sampler.largest])).macs)
    sizes = np.log(sampler.space.costs(pool).macs).reshape(n, MACS_POOL)
    targets = rng.uniform(ends[0], ends[1], size=(n, 1))
    chosen = np.abs(sizes - targets).argmin(axis=1)
    rows: Genotypes = pool.reshape(n, MACS_POOL, -1)[np.arange(n), chosen]
    return rows


SAMPLINGS: Mapping[str, Callable[[Sampler, int, int, Open | None], Genotypes]] = {
    "uniform": uniform,
    "fair": fair,
    "macs": macs,
}
