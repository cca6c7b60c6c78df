"""HAT's evolutionary search: the best quality under a latency limit, in generations."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import StrategyError
from ...search_spaces import GENE_DTYPE, Genotypes
from ...search_spaces.variation import distinct
from ..history import History, Trial
from ..pareto import best
from ..problem import Problem
from ..strategy import Proposal, Strategy
from ._candidates import feasible_pool, known_hashes

ATTEMPTS = 32
"""Children drawn for each one wanted; the first unseen feasible ones are taken."""


class HATEvolution(Strategy):
    """The evolution of HAT (Wang et al. 2020, 2005.14187, Section 3.3 and its published settings).

    A first population of random feasible architectures; then in each generation the best of all so far are
    the parents, and the next ones are mutants of them, then crossovers between them. HAT's 30 iterations
    are ``study.evaluations=3025``, cheap where the quality is a supernet's.

    Which generation and which part of it is due follows from the number of trials, so that nothing is
    remembered and a generation may be proposed in batches. Departs from HAT in two points: a mutated gene
    always changes, and no architecture is proposed twice. HAT draws children until enough of them meet the
    limit, however long that takes; here so many draws are tried, and what is missing is filled up with random
    feasible architectures.

    Args:
        population: Random architectures that come first.
        parents: The best of all so far.
        mutants: A generation; each of a random parent.
        crossovers: A generation; each of two random parents, gene by gene from either.
        mutation_rate: Probability of each gene of a mutant to change.
    """

    name: ClassVar[str] = "hat_evolution"
    max_objectives: ClassVar[int | None] = 1

    def __init__(
        self,
        population: int = 125,
        parents: int = 25,
        mutants: int = 50,
        crossovers: int = 50,
        mutation_rate: float = 0.3,
    ) -> None:
        for field, value, least in (
            ("population", population, 2),
            ("parents", parents, 1),
            ("mutants", mutants, 0),
            ("crossovers", crossovers, 0),
        ):
            if value < least:
                raise StrategyError("too small", field=f"strategy.{field}", value=value, allowed=f"at least {least}")
        if parents > population:
            raise StrategyError(
                "more parents than members", field="strategy.parents", value=parents, allowed=f"1 to {population}"
            )
        if mutants + crossovers < 1:
            raise StrategyError(
                "a generation needs children",
                field="strategy.mutants",
                value=mutants,
                allowed="1 or more, with crossovers",
            )
        if not 0.0 < mutation_rate <= 1.0:
            raise StrategyError(
                "not a probability", field="strategy.mutation_rate", value=mutation_rate, allowed="above 0, to 1"
            )
        self.population = population
        self.parents = parents
        self.mutants = mutants
        self.crossovers = crossovers
        self.mutation_rate = mutation_rate

    def settings(self) -> dict[str, Any]:
        names = ("population", "parents", "mutants", "crossovers", "mutation_rate")
        return {name: getattr(self, name) for name in names}

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        """See :meth:`Strategy.propose`.

        Raises:
            StrategyError: If there is more than one objective.
        """
        if len(problem.objective.directions) > 1:
            raise StrategyError(
                "optimises one value",
                field="objective",
                value=problem.objective.names,
                allowed="one objective, for example objective.metrics=[quality] with a latency limit",
            )
        paid = [trial for trial in history.trials if trial.duplicate_of is None]
        if len(paid) < self.population:
            return Proposal(feasible_pool(problem, history, n, rng).genotypes[: min(n, self.population - len(paid))])
        generation, done = divmod(len(paid) - self.population, self.mutants + self.crossovers)
        before = paid[: self.population + generation * (self.mutants + self.crossovers)]
        return Proposal(self._children(problem, history, before, done, n, rng))

    def _children(
        self, problem: Problem, history: History, before: list[Trial], done: int, n: int, rng: np.random.Generator
    ) -> Genotypes:
        """The next up to ``n`` rows of a generation of which ``done`` are proposed: mutants, then crossovers, then
        random ones for those that could not be bred."""
        mutants = min(n, max(0, self.mutants - done))
        wanted = min(n, self.mutants + self.crossovers - done)
        parents = self._parents(before)
        rows: Genotypes = np.zeros((0, len(problem.space.decisions)), dtype=GENE_DTYPE)
        if len(parents):
            bred = problem.space.mutate(_draw(parents, mutants * ATTEMPTS, rng), rng, self.mutation_rate)
            rows = self._fitting(problem, history, rows, bred)[:mutants]
            count = (wanted - mutants) * ATTEMPTS
            bred = problem.space.crossover(_draw(parents, count, rng), _draw(parents, count, rng), rng)
            rows = np.concatenate([rows, self._fitting(problem, history, rows, bred)[: wanted - mutants]])
        if len(rows) < wanted:
            fill = feasible_pool(problem, history, wanted, rng).genotypes
            rows = distinct(problem.space, np.concatenate([rows, fill]))
        return rows[:wanted]

    def _parents(self, before: list[Trial]) -> Genotypes:
        """The best complete ones ``(P, D)`` of earlier generations: within the limit, then by the objective."""
        complete = [trial for trial in before if trial.state == "complete"]
        if not complete:
            return np.zeros((0, 0), dtype=GENE_DTYPE)
        losses = np.array([trial.losses for trial in complete], dtype=np.float64)
        chosen = best(losses, np.array([trial.violation for trial in complete]), self.parents)
        return np.stack([complete[index].genotype for index in chosen])

    @staticmethod
    def _fitting(problem: Problem, history: History, taken: Genotypes, children: Genotypes) -> Genotypes:
        """Distinct children within the limit that neither the history nor ``taken`` holds, in order."""
        if not len(children):
            return children
        space = problem.space
        known = np.concatenate([known_hashes(space, history), space.algebra.hashes(taken)])
        children = distinct(space, children, known)
        return children[problem.violation(children) <= 0]


def _draw(parents: Genotypes, count: int, rng: np.random.Generator) -> Genotypes:
    return parents[rng.integers(0, len(parents), size=count)]
