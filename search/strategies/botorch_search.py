"""Bayesian optimisation by BoTorch: expected hypervolume improvement on a Gaussian process of quality.

Shapes: N evaluated trials, C candidates, D decisions, M losses.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import StrategyError
from ...predictors.features import choice_names, one_hot
from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..history import History
from ..pareto import best, reference_point
from ..problem import Problem
from ..strategy import Proposal, Strategy
from ._candidates import feasible_pool, known_hashes, spread

FloatArray = npt.NDArray[np.float64]

MIN_TO_FIT = 4
MOST_LOSSES = 4
"""Box decompositions of hypervolume grow exponentially with the number of losses."""
SCALING_SAMPLE = 2048
TAIL = 3.0
"""Standardised qualities are cut off so far below the mean: how bad a bad network is hardly matters."""


class BoTorchSearch(Strategy):
    """BoTorch's qLogEHVI or qLogNEHVI (Daulton et al. 2020, 2006.05078, and 2021, 2105.08195; in logarithms, Ament et
    al. 2023, 2310.20708) over discrete candidates; with one objective value their one-dimensional forms.

    Only quality is uncertain: a Gaussian process (linear and squared exponential: parts of a network nearly add up)
    models it from the choices and what the space counts. All other metrics come from the problem, so that they need
    not be learnt from evaluations. The acquisition is taken over the objective's losses, scaled to their range and
    counted from the reference point of all strategies (nadir of the feasible front, and a tenth of its range beyond).
    The latency limit holds for candidates as it does for other strategies; infeasible evaluations teach the process
    and are not part of the front.

    Without noise, a batch is chosen one by one, and what is chosen or pending is believed at its mean; with noise,
    improvement is joint. Candidates are unseen: mutants of the front, and random ones. A step takes seconds. Needs the
    extra ``botorch``.

    Args:
        noisy: qLogNEHVI, for qualities that are noisy, in place of qLogEHVI.
        initial: Evaluations, spread over the feasible space, before the process takes over.
        candidates: Looked at in each step.
        samples: Monte-Carlo samples of the acquisition.
    """

    name: ClassVar[str] = "botorch"
    max_objectives: ClassVar[int | None] = MOST_LOSSES

    def __init__(self, noisy: bool = False, initial: int = 12, candidates: int = 512, samples: int = 64) -> None:
        for key, value, least in (
            ("initial", initial, MIN_TO_FIT),
            ("candidates", candidates, 1),
            ("samples", samples, 1),
        ):
            if value < least:
                raise StrategyError("too small", field=f"strategy.{key}", value=value, allowed=f"at least {least}")
        self.noisy = noisy
        self.initial = initial
        self.candidates = candidates
        self.samples = samples

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("noisy", "initial", "candidates", "samples")}

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        """See :meth:`Strategy.propose`.

        Raises:
            DependencyError: If BoTorch is not installed.
            StrategyError: If there are too many objective values.
        """
        from ._botorch import choose

        if len(problem.objective.directions) > MOST_LOSSES:
            raise StrategyError(
                "too many values for a hypervolume",
                field="objective",
                value=problem.objective.names,
                allowed=f"up to {MOST_LOSSES}, or strategy=optuna_nsga3",
            )
        missing = self.initial - len(history.trials)
        if missing > 0 or len(history.evaluated) < MIN_TO_FIT:
            pool = feasible_pool(problem, history, n, rng).genotypes
            return Proposal(spread(problem, pool, min(n, missing) if missing > 0 else n, rng))
        rows = self._candidates(problem, history, n, rng)
        if len(rows) <= n:
            return Proposal(rows)
        targets, centre, deviation = _standardised(history.quality)
        feasible = history.violation <= 0 if (history.violation <= 0).any() else np.ones(len(targets), dtype=bool)
        reference, scale = _box(history.losses[feasible])

        def losses(genotypes: Genotypes, quality: FloatArray) -> FloatArray:
            return (problem.losses(genotypes, quality * deviation + centre) - reference) / scale

        chosen = choose(
            history.genotypes,
            targets,
            rows,
            _pending(history, rows.shape[1]),
            np.flatnonzero(feasible),
            n,
            features=Features(problem.space),
            losses=losses,
            noisy=self.noisy,
            samples=self.samples,
            seed=int(rng.integers(2**31)),
        )
        return Proposal(rows[chosen])

    def _candidates(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Genotypes:
        """Unseen rows, feasible ones if there are enough: half of them mutants of the best, half random."""
        space = problem.space
        half = max(self.candidates // 2, n)
        elite = history.genotypes[best(history.losses, history.violation, max(half // 8, 1))]
        parents = elite[rng.integers(0, len(elite), size=4 * half)]
        mutants = distinct(space, space.mutate(parents, rng, 1.5 / len(space.decisions)), known_hashes(space, history))
        mutants = mutants[problem.violation(mutants) <= 0][:half] if len(mutants) else mutants
        random = feasible_pool(problem, history, max(self.candidates - len(mutants), n), rng).genotypes
        return distinct(space, np.concatenate([mutants, random]))[: max(self.candidates, n)]


class Features:
    """What the process sees of rows: what the space counts, and which choice each decision takes ``(N, F)``.

    Scaled so that two random rows are as far apart as random points of a unit cube are, which the prior on length
    scales expects.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        choices = set(choice_names(space))
        self._work = np.array([i for i, name in enumerate(space.feature_names) if name not in choices], dtype=np.int64)
        sample = self._raw(space.sample(SCALING_SAMPLE, np.random.default_rng(0)))
        self._centre, deviation = sample.mean(axis=0), sample.std(axis=0) * np.sqrt(12.0)
        self._inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)

    def __call__(self, genotypes: Genotypes) -> FloatArray:
        """Rows ``(N, D)`` to features ``(N, F)``."""
        return np.asarray((self._raw(genotypes) - self._centre) * self._inverse)

    def _raw(self, genotypes: Genotypes) -> FloatArray:
        work = self._space.encode(genotypes)[:, self._work]
        return np.concatenate([work, one_hot(self._space, genotypes)], axis=1).astype(np.float64)


def _standardised(quality: FloatArray) -> tuple[FloatArray, float, float]:
    """Quality with zero mean and unit deviation and without its lower tail ``(N,)``; mean and deviation."""
    median, upper = np.quantile(quality, [0.5, 0.9])
    cut = np.maximum(quality, median - TAIL * (upper - median)) if upper > median else quality
    centre, deviation = float(cut.mean()), float(cut.std())
    deviation = deviation if deviation > 0 else 1.0
    return np.asarray((cut - centre) / deviation), centre, deviation


def _box(losses: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Reference point, and each loss's range from there to its best."""
    reference = reference_point(losses)
    return reference, np.maximum(reference - losses.min(axis=0), 1e-12)


def _pending(history: History, genes: int) -> Genotypes:
    rows = [t.genotype for t in history.trials if t.state == "pending"]
    return np.stack(rows) if rows else np.zeros((0, genes), dtype=GENE_DTYPE)
