"""What strategies share: unseen rows, feasible first, spread out, with bounded effort.

Shapes: n rows wanted, N candidates, D decisions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..history import History
from ..inner_loop import Population, evolve
from ..problem import Problem

POOL = 4096
"""Random rows drawn at a time."""

SMALL_SPACE = 50_000
"""Spaces of at most so many architectures are looked at whole."""


def known_hashes(space: SearchSpace, history: History) -> npt.NDArray[np.uint64]:
    """Hashes of every row of the history: complete, failed and pending."""
    if not history.trials:
        return np.zeros(0, dtype=np.uint64)
    return space.algebra.hashes(history.known)


def is_small(space: SearchSpace) -> bool:
    """Whether the whole space may be listed at each step."""
    return space.log10_size <= math.log10(SMALL_SPACE) + 1e-9


def random_pool(space: SearchSpace, history: History, rng: np.random.Generator, size: int = POOL) -> Genotypes:
    """Distinct unseen rows in random order: about ``size``, or all there are in a small space.

    A large space is drawn from once, so that the effort is bounded; the pool may come out smaller.
    """
    if is_small(space):
        rows = rng.permutation(space.enumerate(SMALL_SPACE))
        return distinct(space, rows, known_hashes(space, history))[:size]
    return distinct(space, space.sample(size, rng), known_hashes(space, history))


def feasible_pool(problem: Problem, history: History, n: int, rng: np.random.Generator) -> Population:
    """Distinct unseen rows, the feasible ones of a random pool; where it holds fewer than ``n``,
    those that evolution finds to violate the limit least. Losses are left at zero."""
    pool = _by_violation(problem, random_pool(problem.space, history, rng, max(POOL, 4 * n)))
    feasible = np.flatnonzero(pool.violation <= 0)
    if len(feasible) >= n:
        return pool.select(feasible)
    if not is_small(problem.space) and len(pool):
        pool = _toward_feasible(problem, history, pool, n, rng)
        feasible = np.flatnonzero(pool.violation <= 0)
        if len(feasible) >= n:
            return pool.select(feasible)
    return pool.select(np.argsort(pool.violation, kind="stable")[:n])


def _by_violation(problem: Problem, rows: Genotypes) -> Population:
    return Population(rows, np.zeros((len(rows), 1)), problem.violation(rows))


def _toward_feasible(
    problem: Problem, history: History, pool: Population, n: int, rng: np.random.Generator
) -> Population:
    """The pool and what evolution makes of it on violation alone, unseen rows only."""

    def score(rows: Genotypes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return np.zeros((len(rows), 1)), problem.violation(rows)

    evolved = evolve(problem.space, score, pool.genotypes, rng, population=max(1000, 2 * n), generations=30)
    rows = np.concatenate([evolved.genotypes, pool.genotypes])
    return _by_violation(problem, distinct(problem.space, rows, known_hashes(problem.space, history)))


def spread(problem: Problem, pool: Genotypes, n: int, rng: np.random.Generator, among: int = 64) -> Genotypes:
    """``n`` rows of ``pool`` that fill the range of predicted latency, and the space.

    The pool is cut into ``n`` strata by latency; from each comes the row, out of ``among`` random
    ones, that differs from all rows chosen before in the most genes.
    """
    if len(pool) <= n:
        return pool
    order = np.argsort(problem.latency.predict_mean(pool), kind="stable")
    chosen = np.zeros((n, pool.shape[1]), dtype=GENE_DTYPE)
    for i, stratum in enumerate(np.array_split(order, n)):
        rows = pool[rng.permutation(stratum)[:among]]
        nearest = (rows[:, None] != chosen[None, :i]).sum(axis=2).min(axis=1, initial=pool.shape[1])
        chosen[i] = rows[nearest.argmax()]
    return rng.permutation(chosen)
