"""Optimisers of other libraries, run as their users run them: on the choices themselves, not through our adapters.

Shapes: N distinct evaluations, D decisions, M losses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gnomon.errors import DependencyError
from gnomon.search import Problem
from gnomon.search_spaces import GENE_DTYPE, Genotypes

FloatArray = npt.NDArray[np.float64]
Quality = Callable[[Genotypes], FloatArray]

REPEATS = 5
"""Asks in a row for what is known already, after which an optimiser is handed a random unseen network: small spaces
make samplers repeat themselves, and a budget of distinct evaluations would never end."""


@dataclass
class Book:
    """Counts distinct evaluations; what was evaluated before is answered for nothing.

    Args:
        problem: Space, losses and violation.
        quality: Of canonical rows.
        budget: Distinct evaluations that may be made.
    """

    problem: Problem
    quality: Quality
    budget: int
    rows: list[Genotypes] = field(default_factory=list)
    known: dict[str, tuple[FloatArray, float]] = field(default_factory=dict)
    repeats: int = 0

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return len(self.rows) >= self.budget

    @property
    def stuck(self) -> bool:
        """Whether the optimiser only repeats itself."""
        return self.repeats >= REPEATS

    def evaluate(self, genes: npt.ArrayLike) -> tuple[FloatArray, float]:
        """Losses ``(M,)`` and violation of choice indices ``(D,)``."""
        row = self.problem.space.canonical(np.asarray(genes, dtype=GENE_DTYPE)[None])
        (key,) = self.problem.space.keys(row)
        self.repeats += 1
        if key not in self.known:
            self.repeats = 0
            losses = self.problem.losses(row, self.quality(row))[0]
            self.known[key] = losses, float(self.problem.violation(row)[0])
            self.rows.append(row[0])
        return self.known[key]

    def unseen(self, rng: np.random.Generator) -> Genotypes:
        """A random row ``(D,)`` that was not evaluated."""
        space = self.problem.space
        pool = space.sample(10 * self.budget, rng)
        return next(row for row, key in zip(pool, space.keys(pool), strict=True) if key not in self.known)

    def first(self) -> Genotypes:
        """The first ``budget`` distinct rows ``(N, D)``, in order."""
        return np.stack(self.rows[: self.budget])


def optuna_directly(sampler: str, arguments: dict[str, Any], book: Book, seed: int) -> None:
    """Ask, evaluate, tell, one by one: every value is known when the next network is asked for."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = book.problem.space
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            sampler=getattr(optuna.samplers, sampler)(seed=seed, **arguments),
            directions=["minimize"] * len(book.problem.objective.directions),
        )
        rng = np.random.default_rng(seed)
        while not book.done:
            if book.stuck:
                study.enqueue_trial(
                    dict(zip((d.name for d in space.decisions), book.unseen(rng).tolist(), strict=True))
                )
            trial = study.ask()
            genes = [
                trial.suggest_int(each.name, 0, len(each.choices) - 1)
                if each.ordered
                else trial.suggest_categorical(each.name, range(len(each.choices)))
                for each in space.decisions
            ]
            losses, violation = book.evaluate(genes)
            if book.problem.limit_ms is not None:
                trial.set_constraint("latency", violation)
            study.tell(trial, losses.tolist())


def pymoo_nsga2(population: int, book: Book, seed: int) -> None:
    """pymoo's NSGA-II on categorical and integer variables, with its own operators for them and its removal of
    duplicates."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2, RankAndCrowdingSurvival
        from pymoo.core.mixed import MixedVariableDuplicateElimination, MixedVariableMating, MixedVariableSampling
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.core.termination import NoTermination
        from pymoo.core.variable import Choice, Integer
    except ImportError as error:
        raise DependencyError("needs pymoo", hint="pip install 'gnomon-nas[bench]'") from error
    decisions = book.problem.space.decisions
    constrained = book.problem.limit_ms is not None
    variables = {
        each.name: Integer(bounds=(0, len(each.choices) - 1))
        if each.ordered
        else Choice(options=list(range(len(each.choices))))
        for each in decisions
    }
    problem = PymooProblem(vars=variables, n_obj=len(book.problem.objective.directions), n_ieq_constr=int(constrained))
    algorithm = NSGA2(
        pop_size=population,
        sampling=MixedVariableSampling(),
        mating=MixedVariableMating(eliminate_duplicates=MixedVariableDuplicateElimination()),
        eliminate_duplicates=MixedVariableDuplicateElimination(),
        survival=RankAndCrowdingSurvival(),
    )
    algorithm.setup(problem, termination=NoTermination(), seed=seed, verbose=False)
    while not book.done:
        asked = algorithm.ask()
        if asked is None or not len(asked):
            raise SystemExit(f"pymoo's NSGA-II ended after {len(book.rows)} evaluations")
        answers = [book.evaluate([one[each.name] for each in decisions]) for one in asked.get("X")]
        asked.set("F", np.array([losses for losses, _ in answers]))
        if constrained:
            asked.set("G", np.array([[violation] for _, violation in answers]))
        algorithm.tell(infills=asked)
