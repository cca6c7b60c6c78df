"""One change at a time, then an integer program: the search of Puzzle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import SpaceError, StrategyError
from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..history import History
from ..problem import Problem
from ..strategy import Proposal, Strategy
from ._candidates import feasible_pool, known_hashes

FloatArray = npt.NDArray[np.float64]

LIMITS = 8
"""Latencies between the fastest sum and the limit for which a program is solved, where latency is optimised."""
TIGHTENINGS = 4
"""Times that a limit is tightened after a solution broke it: latencies are sums only nearly."""
RANDOM = 512
"""Random rows to which the sum of latencies is fitted, besides the single changes."""
RIDGE = 1e-2
"""Of the effects, which the single changes determine; what was evaluated later corrects them."""


class IntegerProgram(Strategy):
    """Replaces parts of a reference network: each change is evaluated alone, then the best set of changes follows.

    Puzzle (Bercovich et al. 2024, 2411.19146, Section 4) scores each block variant of a trained parent by the loss
    of quality that it alone brings, takes quality and latency as sums over blocks, and solves for the best sum within
    the limit by mixed-integer programming. So does this strategy, for any space in which such sums are near the
    truth. It goes on after the first solution: the sums are fitted again (ridge regression) to all that was
    evaluated, and the next best unseen solutions are proposed. The space's named networks within the limit are
    evaluated before the first program. Where latency is an objective, solutions lie along the front.

    Args:
        reference: Whose parts are changed: a network's name in the space, or its config. None for the first named
            one, or the last choice of every decision where the space names none. The method makes most sense where
            it is the best of the space (the trained parent).
    """

    name: ClassVar[str] = "integer_program"

    def __init__(self, reference: str | Mapping[str, Any] | None = None) -> None:
        self.reference = reference

    def settings(self) -> dict[str, Any]:
        reference = self.reference
        return {"reference": dict(reference) if isinstance(reference, Mapping) else reference}

    def check(self, space: SearchSpace) -> None:
        """See :meth:`Strategy.check`: it must know the reference."""
        try:
            self._reference(space)
        except SpaceError as error:
            raise StrategyError(
                error.problem, field="strategy.reference", value=self.reference, allowed=error.allowed
            ) from error

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        """See :meth:`Strategy.propose`."""
        space = problem.space
        reference = self._reference(space)
        singles = np.concatenate([reference[None], single_changes(space, reference)])
        known = known_hashes(space, history)
        order = np.concatenate([[0], 1 + rng.permutation(len(singles) - 1)])  # with few evaluations, any of them
        new = distinct(space, singles[order], known)
        if len(new) or not history.evaluated:
            return Proposal(new[:n])
        named = self._named(problem)
        if len(named) and len(new := distinct(space, named, known)):
            return Proposal(new[:n])
        sums = Sums.fitted(problem, singles, space.sample(RANDOM, rng), history)
        solutions = self._solutions(problem, history, sums, n)
        if len(solutions) < n:
            solutions = np.concatenate([solutions, feasible_pool(problem, history, n, rng).genotypes])
        return Proposal(distinct(space, solutions, known)[:n])

    def _named(self, problem: Problem) -> Genotypes:
        """Named networks within the limit: what people would try first, and far from the reference."""
        rows = [problem.space.genotype(config) for config in problem.space.named.values()]
        found: Genotypes = np.stack(rows) if rows else np.zeros((0, len(problem.space.decisions)), dtype=GENE_DTYPE)
        return found[problem.violation(found) <= 0] if len(found) else found

    def _reference(self, space: SearchSpace) -> Genotypes:
        if isinstance(self.reference, Mapping):
            return space.genotype(self.reference)
        name = self.reference or next(iter(space.named), None)
        if name is None:
            last: Genotypes = np.array([space.algebra.cardinalities], dtype=GENE_DTYPE) - 1
            return np.asarray(space.canonical(last)[0])
        return space.named_genotype(name)

    def _solutions(self, problem: Problem, history: History, sums: Sums, n: int) -> Genotypes:
        """Unseen rows, best first by the objective under predicted quality; feasible ones before others."""
        known = history.known
        limits = sums.limits(problem, n)
        rows: list[Genotypes] = []
        for index in range(max(n, len(limits))):
            seen = np.concatenate([known, *(row[None] for row in rows)]) if rows else known
            row = sums.solved(problem, limits[index % len(limits)], seen)
            if row is not None:
                rows.append(row)
        if not rows:
            return np.zeros((0, len(problem.space.decisions)), dtype=GENE_DTYPE)
        found = np.unique(np.stack(rows), axis=0)
        losses = problem.losses(found, sums.quality_of(found))
        order = np.lexsort((losses[:, 0], problem.violation(found) > 0))
        if losses.shape[1] > 1:  # Along the front every solution counts as much as another.
            order = order[np.argsort((problem.violation(found) > 0)[order], kind="stable")]
        return np.asarray(found[order])


def single_changes(space: SearchSpace, reference: Genotypes) -> Genotypes:
    """Every architecture that differs from ``reference`` ``(D,)`` in one decision ``(N, D)``."""
    rows = []
    for gene, count in enumerate(space.algebra.cardinalities):
        for choice in range(count):
            row = reference.copy()
            row[gene] = choice
            rows.append(row)
    changed = space.canonical(np.stack(rows))
    return distinct(space, changed, space.algebra.hashes(reference[None]))


@dataclass(frozen=True)
class Sums:
    """Quality and latency as sums over decisions, around a reference.

    Shapes: V pairs of (decision, choice).
    """

    space: SearchSpace
    base_quality: float
    quality: FloatArray
    base_ms: float
    latency_ms: FloatArray

    @classmethod
    def fitted(cls, problem: Problem, singles: Genotypes, random: Genotypes, history: History) -> Sums:
        """Latency from the predictor, quality from all that was evaluated.

        Args:
            problem: What is searched.
            singles: The reference, then its single changes.
            random: More rows for the latency, which costs nothing to predict: it is seldom quite a sum.
            history: With the reference's evaluation, unless that failed.
        """
        space, reference = problem.space, singles[0]
        rows = np.concatenate([singles, random])
        predicted = problem.latency.predict_mean(rows)
        latency = _ridge(_pairs(space, rows, reference), predicted - predicted[0], 1e-6)
        same = (history.genotypes == reference).all(axis=1)
        base = float(history.quality[same].mean()) if same.any() else float(history.quality.max())
        quality = _ridge(_pairs(space, history.genotypes, reference), history.quality - base, RIDGE)
        return cls(space, base, quality, float(predicted[0]), latency)

    def quality_of(self, genotypes: Genotypes) -> FloatArray:
        """Predicted ``(N,)``; the reference's own pairs have no effect."""
        found: FloatArray = self.base_quality + _one_hot(self.space, genotypes) @ self.quality
        return found

    def limits(self, problem: Problem, n: int) -> FloatArray:
        """Latencies in ms for which programs are solved."""
        genes = _gene_of_pair(self.space)
        least = self.base_ms + sum(self.latency_ms[genes == gene].min() for gene in range(len(self.space.decisions)))
        most = self.base_ms + sum(self.latency_ms[genes == gene].max() for gene in range(len(self.space.decisions)))
        top = most if problem.limit_ms is None else problem.limit_ms
        if "latency_ms" not in problem.objective.metrics:
            return np.array([top])
        return np.linspace(top, min(least, top), min(n, LIMITS) + 1)[:-1]

    def solved(self, problem: Problem, limit_ms: float, seen: Genotypes) -> Genotypes | None:
        """The unseen row ``(D,)`` with the best sum of quality whose sum of latencies is within ``limit_ms``, or
        within a tighter one, if the study's limit does not hold for it; None if none is found."""
        for _ in range(TIGHTENINGS):
            found = self._program(limit_ms - self.base_ms, seen)
            if found is None:
                return None
            row: Genotypes = self.space.canonical(found[None])[0]
            excess = float(problem.violation(row[None])[0])
            if excess <= 0:
                return row
            limit_ms /= 1.0 + excess + 1e-3
        return None

    def _program(self, room_ms: float, seen: Genotypes) -> Genotypes | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        genes = _gene_of_pair(self.space)
        count = len(self.space.decisions)
        one_each = (genes[None] == np.arange(count)[:, None]).astype(np.float64)
        constraints = [
            LinearConstraint(one_each, 1.0, 1.0),
            LinearConstraint(self.latency_ms[None], -np.inf, room_ms),
        ]
        if len(seen):  # At least one decision is another.
            constraints.append(LinearConstraint(_one_hot(self.space, seen), -np.inf, count - 1.0))
        scale = max(float(np.abs(self.quality).max()), 1e-12)
        result = milp(
            -self.quality / scale, constraints=constraints, bounds=Bounds(0, 1), integrality=np.ones(len(genes))
        )
        if result.x is None:
            return None
        row = np.zeros(count, dtype=GENE_DTYPE)
        chosen = np.flatnonzero(result.x > 0.5)
        firsts = np.searchsorted(genes, np.arange(count))
        row[genes[chosen]] = chosen - firsts[genes[chosen]]
        return row


def _gene_of_pair(space: SearchSpace) -> npt.NDArray[np.int64]:
    """The decision of each pair ``(V,)``."""
    return np.repeat(np.arange(len(space.decisions)), space.algebra.cardinalities)


def _one_hot(space: SearchSpace, genotypes: Genotypes) -> FloatArray:
    """``(N, V)``."""
    genes = _gene_of_pair(space)
    choices = np.concatenate([np.arange(count) for count in space.algebra.cardinalities])
    same: FloatArray = (genotypes[:, genes] == choices).astype(np.float64)
    return same


def _pairs(space: SearchSpace, genotypes: Genotypes, reference: Genotypes) -> FloatArray:
    """One-hot, without the pairs that the reference has."""
    return np.asarray(_one_hot(space, genotypes) * (1.0 - _one_hot(space, reference[None])))


def _ridge(features: FloatArray, values: FloatArray, ridge: float) -> FloatArray:
    """Effects ``(V,)`` of features ``(N, V)``; of those that never occur 0."""
    penalty = ridge * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(features.T @ features + penalty, features.T @ values))
