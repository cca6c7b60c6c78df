"""Aging evolution: mutate a tournament's winner, forget the oldest."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ...errors import StrategyError
from ...search_spaces import Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..history import History, Trial
from ..pareto import crowding, ranks
from ..problem import Problem
from ..strategy import Proposal, Strategy
from ._candidates import feasible_pool, known_hashes, random_pool
from ._solving import check_solvable, solved_last

ATTEMPTS = 32
"""Mutants drawn for each one wanted; the first unseen feasible ones are taken."""

SOLVED_AT_ONCE = 1024
"""Random rows of which each is predicted with every choice of the decision that is solved."""


class AgingEvolution(Strategy):
    """Regularized evolution (Real et al. 2018, 1802.01548).

    The population is the youngest ``population`` evaluated trials, so that nothing but the history
    is needed. Departs from the paper in three points: with several objectives a tournament is won
    on constrained non-domination rank, then crowding distance; children that were seen before are
    drawn again, so that each costs an evaluation only once; a child that the latency model says to
    be infeasible is taken only if there are too few others.

    Args:
        population: Trials that may become parents; so many random ones come first.
        tournament: Contestants for each parent.
        mutations: Mean number of genes that a mutation moves; at least one always does.
        solve_last: An ordered decision that is not searched: each architecture gets the largest choice that
            meets the latency limit, as Nemotron-Flash (2511.18890) sets the hidden size. None for none.
    """

    name: ClassVar[str] = "aging_evolution"

    def __init__(
        self, population: int = 50, tournament: int = 10, mutations: float = 1.0, solve_last: str | None = None
    ) -> None:
        if population < 2:
            raise StrategyError("too small", field="strategy.population", value=population, allowed="at least 2")
        if not 1 <= tournament <= population:
            raise StrategyError(
                "not a tournament size",
                field="strategy.tournament",
                value=tournament,
                allowed=f"1 to the population, {population}",
            )
        if not mutations > 0:
            raise StrategyError("must be positive", field="strategy.mutations", value=mutations, allowed="> 0")
        self.population = population
        self.tournament = tournament
        self.mutations = mutations
        self.solve_last = solve_last

    def check(self, space: SearchSpace) -> None:
        """See :meth:`Strategy.check`: ``solve_last`` must be one of its decisions."""
        if self.solve_last is not None:
            check_solvable(space, self.solve_last)

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        missing = self.population - len(history.trials)
        if missing > 0 or not history.evaluated:
            count = min(n, missing) if missing > 0 else n
            return Proposal(self._random(problem, history, n, rng)[:count])
        children = self._children(problem, history, n, rng)
        if len(children) < n:
            fill = self._random(problem, history, n, rng)
            children = distinct(problem.space, np.concatenate([children, fill]))
        return Proposal(children[:n])

    def settings(self) -> dict[str, Any]:
        settings = {"population": self.population, "tournament": self.tournament, "mutations": self.mutations}
        return settings if self.solve_last is None else {**settings, "solve_last": self.solve_last}

    def _random(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Genotypes:
        """Unseen random rows, feasible ones first."""
        if self.solve_last is None:
            return feasible_pool(problem, history, n, rng).genotypes
        rows = random_pool(problem.space, history, rng, SOLVED_AT_ONCE)
        return self._unseen(problem, history, rows)[:n]

    def _unseen(self, problem: Problem, history: History, rows: Genotypes) -> Genotypes:
        """Distinct unseen rows, feasible ones first; each with its last decision solved."""
        if self.solve_last is not None:
            rows = solved_last(problem, rows, self.solve_last)
        rows = distinct(problem.space, rows, known_hashes(problem.space, history))
        infeasible = problem.violation(rows) > 0
        return rows[np.argsort(infeasible, kind="stable")]

    def _children(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Genotypes:
        """Unseen mutants of tournament winners, feasible ones first."""
        space = problem.space
        alive = history.evaluated[-self.population :]
        parents = np.stack([t.genotype for t in alive])[self._winners(alive, n * ATTEMPTS, rng)]
        rate = min(1.0, self.mutations / len(space.decisions))
        return self._unseen(problem, history, space.mutate(parents, rng, rate))[:n]

    def _winners(self, alive: tuple[Trial, ...], count: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Positions in ``alive`` of the winners of ``count`` tournaments."""
        losses = np.array([t.losses for t in alive], dtype=np.float64)
        rank = ranks(losses, np.array([t.violation for t in alive]))
        order = np.lexsort((-crowding(losses, rank), rank))
        size = min(self.tournament, len(alive))
        # Members in order of merit: the least of a draw is its winner.
        draws = rng.integers(0, len(alive), size=(count, size))
        return np.asarray(order[draws.min(axis=1)])
