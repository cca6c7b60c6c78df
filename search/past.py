"""What an evaluator that learns from earlier evaluations is told.

Shapes: N past evaluations, D decisions, M objective values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..records import Evaluation
from ..search_spaces import Architecture, Genotypes
from ..tasks.base import Past
from .history import Trial
from .ledger import Ledger
from .problem import Problem

FloatArray = npt.NDArray[np.float64]

BISECTIONS = 60
REACH = 1e3
"""Qualities are sought within so many times the largest one seen."""


def past_evaluations(ledger: Ledger, problem: Problem, architecture: Architecture) -> tuple[list[Past], FloatArray]:
    """Complete evaluations in order of number, and the quality ``(N,)`` with which ``architecture`` beats each; see
    :meth:`gnomon.tasks.base.Evaluator.observe`."""
    frozen = ledger.frozen_trials()
    trials = ledger.history(frozen).evaluated
    attributes = {trial.number: trial.user_attrs for trial in frozen}
    past = [Past(t.genotype, Evaluation.from_dict(attributes[t.number]["evaluation"])) for t in trials]
    row = problem.space.genotype(architecture.config)
    return past, quality_to_beat(problem, trials, row)


def quality_to_beat(problem: Problem, trials: tuple[Trial, ...], row: Genotypes) -> FloatArray:
    """Quality ``(N,)`` above which an architecture ``(D,)`` is better than each trial in at least one objective.

    Minus infinity where it is so at any quality, because it is faster or smaller; plus infinity where it never is.
    Trials that break the latency limit are no rivals of an architecture that keeps it; one that breaks it itself has
    all for rivals. Trials whose training was stopped early are no rivals: their quality is a guess.
    """
    needed = np.full(len(trials), -np.inf)
    keeps = float(problem.violation(row[None])[0]) <= 0
    rivals = [i for i, t in enumerate(trials) if t.stopped_at is None and (t.violation <= 0 or not keeps)]
    if not rivals:
        return needed
    losses = np.array([trials[i].losses for i in rivals], dtype=np.float64)
    quality = np.array([trials[i].quality for i in rivals], dtype=np.float64)
    needed[rivals] = _bisect(problem, losses, np.repeat(row[None], len(rivals), axis=0), quality)
    return needed


def _bisect(problem: Problem, losses: FloatArray, rows: Genotypes, quality: FloatArray) -> FloatArray:
    """The largest quality ``(N,)`` with which the rows are no better in anything than ``losses`` ``(N, M)``."""

    def beaten(values: FloatArray) -> npt.NDArray[np.bool_]:
        return np.asarray((losses <= problem.losses(rows, values)).all(axis=1))

    # At equal quality an architecture with equal costs is beaten: the first try settles most of the cases exactly.
    reach = REACH * max(1.0, float(np.abs(quality).max()))
    low, high = np.full(len(rows), -reach), np.full(len(rows), reach)
    always, never = ~beaten(low), beaten(high)
    is_level = beaten(quality) & ~beaten(np.nextafter(quality, np.inf))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = beaten(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(np.select([always, never, is_level], [-np.inf, np.inf, quality], low))
