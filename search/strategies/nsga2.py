"""NSGA-II on predictions, batches chosen by expected hypervolume improvement: the default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ...errors import StrategyError
from ...predictors.quality import QualityPredictor
from ...predictors.upper_gaussian_process import UpperGaussianProcess
from ...search_spaces import Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..history import History
from ..inner_loop import Population, evolve
from ..instantiate import instantiate
from ..pareto import best
from ..problem import Problem
from ..strategy import Proposal, Strategy
from ._acquisition import Acquisition
from ._candidates import SMALL_SPACE, feasible_pool, is_small, known_hashes, spread

FloatArray = npt.NDArray[np.float64]
MakeQualityPredictor: TypeAlias = Callable[[SearchSpace], QualityPredictor]

MIN_TO_FIT = 6
"""Evaluations below which no quality predictor is worth fitting."""


class NSGA2(Strategy):
    """Predictor-guided NSGA-II.

    Each step fits a quality predictor to the history, lets NSGA-II (Deb et al. 2002) search on
    predicted losses with the latency limit as a constraint, and takes the batch from the rows it
    found: one by one, those of the largest expected hypervolume improvement under the
    predictors' uncertainty (see :class:`Acquisition`). A space of at most 50,000 architectures is
    scored whole instead. The first ``initial`` rows are feasible ones spread over latency and
    genes, led by the space's named networks.

    Args:
        initial: Trials before the predictor takes over.
        population: Members of the inner NSGA-II, and children of each generation.
        generations: Of the inner NSGA-II, a step.
        optimism: Standard deviations of quality added while the inner loop searches.
        draws: Worlds drawn from the predictors to average the improvement over.
        named: Whether feasible named networks of the space lead the initial design.
        quality_predictor: Makes the quality predictor of a space; None for a Gaussian process
            (:class:`~gnomon.predictors.upper_gaussian_process.UpperGaussianProcess`). In a config,
            a node with ``_target_`` and ``_partial_: true``.
    """

    name: ClassVar[str] = "nsga2"

    def __init__(
        self,
        initial: int = 12,
        population: int = 1000,
        generations: int = 15,
        optimism: float = 0.5,
        draws: int = 32,
        named: bool = True,
        quality_predictor: MakeQualityPredictor | Mapping[str, Any] | None = None,
    ) -> None:
        for key, value, least in (
            ("initial", initial, MIN_TO_FIT),
            ("population", population, 10),
            ("generations", generations, 1),
            ("draws", draws, 1),
        ):
            if value < least:
                raise StrategyError("too small", field=f"strategy.{key}", value=value, allowed=f"at least {least}")
        if not 0 <= optimism < 10:
            raise StrategyError("not sensible", field="strategy.optimism", value=optimism, allowed="0 to 10")
        self.initial = initial
        self.population = population
        self.generations = generations
        self.optimism = optimism
        self.draws = draws
        self.named = named
        self.quality_predictor = _maker(quality_predictor)

    def settings(self) -> dict[str, Any]:
        names = ("initial", "population", "generations", "optimism", "draws", "named")
        return {name: getattr(self, name) for name in names} | {"quality_predictor": _node(self.quality_predictor)}

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        missing = self.initial - len(history.trials)
        if missing > 0 or len(history.evaluated) < MIN_TO_FIT:
            return Proposal(self._design(problem, history, min(n, missing) if missing > 0 else n, rng))
        predictor = self.quality_predictor(problem.space).fit(history.genotypes, history.quality)
        candidates = self._candidates(problem, history, predictor, n, rng)
        if not len(candidates):
            return Proposal(feasible_pool(problem, history, n, rng).genotypes[:n])
        acquisition = Acquisition(problem, history, predictor, candidates, self.draws, rng)
        return Proposal(candidates[acquisition.pick(n)])

    def _design(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Genotypes:
        """Named networks that are feasible and unseen, then a space-filling sample."""
        pool = feasible_pool(problem, history, n, rng).genotypes
        rows = spread(problem, pool, n, rng)
        if self.named and problem.space.named:
            names = np.stack([problem.space.named_genotype(name) for name in problem.space.named])
            names = distinct(problem.space, names, known_hashes(problem.space, history))
            rows = distinct(problem.space, np.concatenate([names[problem.violation(names) <= 0], rows]))
        return rows[:n]

    def _candidates(
        self, problem: Problem, history: History, predictor: QualityPredictor, n: int, rng: np.random.Generator
    ) -> Genotypes:
        """Unseen rows worth a closer look: the best by optimistic prediction."""
        space = problem.space

        def score(rows: Genotypes) -> tuple[FloatArray, FloatArray]:
            (hoped,) = predictor.spread(rows, np.array([[self.optimism]]))
            return problem.losses(rows, hoped), problem.violation(rows)

        known = known_hashes(space, history)
        if is_small(space):
            rows = distinct(space, space.enumerate(SMALL_SPACE), known)
            if not len(rows):
                return rows
            found = Population(rows, *score(rows))
        else:
            elite = history.genotypes[best(history.losses, history.violation, self.population // 2)]
            start = np.concatenate([elite, space.sample(self.population, rng)])
            evolved = evolve(space, score, start, rng, population=self.population, generations=self.generations)
            unseen = ~np.isin(space.algebra.hashes(evolved.genotypes), known)
            found = evolved.select(np.flatnonzero(unseen))
        feasible = np.flatnonzero(found.violation <= 0)
        if len(feasible) >= n:
            found = found.select(feasible)
        return found.select(best(found.losses, found.violation, max(self.population // 2, n))).genotypes


def _maker(given: MakeQualityPredictor | Mapping[str, Any] | None) -> MakeQualityPredictor:
    """What makes quality predictors, from a config node too."""
    if given is None:
        return UpperGaussianProcess
    made = (
        instantiate({**given, "_partial_": True}, "strategy.quality_predictor") if isinstance(given, Mapping) else given
    )
    if not callable(made):
        raise StrategyError(
            "makes no quality predictor",
            field="strategy.quality_predictor",
            value=made,
            allowed="a node with _target_ and _partial_: true, or quality_predictor=NAME",
        )
    maker: MakeQualityPredictor = made
    return maker


def _node(made: Any) -> dict[str, Any]:
    """The config node of a class, a function, a partial of one, or an object that knows its settings."""
    if hasattr(made, "settings"):
        return {"_target_": _path(type(made)), **made.settings()}
    settings: dict[str, Any] = {}
    while isinstance(made, partial):
        settings = made.keywords | settings
        made = made.func
    inner = {key: _node(value) if callable(value) else value for key, value in settings.items()}
    return {"_target_": _path(made), "_partial_": True, **inner}


def _path(made: Any) -> str:
    return f"{made.__module__}.{getattr(made, '__qualname__', type(made).__qualname__)}"
