"""A search in memory: strategies driven as the ledger drives them, without files or training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..search.history import History, Trial
from ..search.problem import Problem
from ..search.strategies.random import RandomStrategy
from ..search.strategy import Proposal, Strategy
from ..search_spaces import Genotypes

FloatArray = npt.NDArray[np.float64]
QualityFunction = Callable[[Genotypes], FloatArray]
"""Canonical rows ``(N, D)`` to quality ``(N,)``, larger is better; NaN makes an evaluation fail."""

STEPS_PER_EVALUATION = 4
"""Steps after which a search that gets nowhere is ended, as a multiple of the evaluations."""


@dataclass(frozen=True)
class Simulation:
    """How a simulated search went.

    Args:
        history: At its end; nothing is pending.
        proposals: Each step's, in order.
        fills: Steps at which the strategy had nothing new, and random rows were taken instead.
    """

    history: History
    proposals: tuple[Proposal, ...]
    fills: int


def simulate(
    strategy_factory: Callable[[], Strategy],
    problem: Problem,
    quality: QualityFunction,
    *,
    evaluations: int,
    batch: int = 8,
    seed: int = 0,
    rebuild: bool = True,
    lag: int = 0,
) -> Simulation:
    """Runs a search with the semantics of the ledger.

    A row equal to an evaluated one becomes a complete copy; rows equal to pending or failed ones,
    or repeated within a proposal, are dropped; where nothing new is left, random unseen rows take
    their place. State and attributes go through JSON.

    Args:
        strategy_factory: Makes the strategy.
        problem: What is searched.
        quality: Stands for training; NaN fails.
        evaluations: Distinct rows to evaluate, failures included; fewer if the space has no more.
        batch: Rows asked for at each step.
        seed: Of the run.
        rebuild: Make a new strategy at every step, as after a kill; else one lives throughout.
        lag: Rows still pending when the next proposal is made, as with several workers.
    """
    strategy = strategy_factory()
    trials: list[Trial] = []
    state: Any = None
    proposals: list[Proposal] = []
    fills = 0
    for step in range(STEPS_PER_EVALUATION * evaluations):
        missing = evaluations - sum(t.duplicate_of is None for t in trials)
        if missing <= 0:
            break
        if rebuild:
            strategy = strategy_factory()
        history = History(tuple(trials), state, step)
        n = min(batch, missing)
        proposal = strategy.propose(problem, history, n, np.random.default_rng([seed, step]))
        proposals.append(proposal)
        state = _through_json(proposal.state)
        if not _commit(trials, proposal, problem):
            fill = RandomStrategy().propose(problem, replace(history, trials=tuple(trials)), n, _fill_rng(seed, step))
            fills += 1
            if not _commit(trials, fill, problem):
                break
        _evaluate(trials, problem, quality, lag)
    _evaluate(trials, problem, quality, 0)
    return Simulation(History(tuple(trials), state, len(proposals)), tuple(proposals), fills)


def _fill_rng(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, step, 1])


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def _commit(trials: list[Trial], proposal: Proposal, problem: Problem) -> int:
    """Appends a proposal's trials; returns how many are new."""
    space = problem.space
    if not len(proposal.genotypes):
        return 0
    rows = space.canonical(space.algebra.validate(proposal.genotypes))
    attributes = proposal.attributes or ({},) * len(rows)
    violation = problem.violation(rows)
    known = {key: t for key, t in zip(_keys(trials, problem), trials, strict=True) if t.duplicate_of is None}
    new = 0
    for key, row, own, excess in zip(space.keys(rows), rows, attributes, violation.tolist(), strict=True):
        original = known.get(key)
        if original is not None and original.state != "complete":
            continue
        trial = Trial(len(trials), row, "pending", violation=excess, attributes=_through_json(dict(own)))
        if original is not None:
            trial = replace(
                trial,
                state="complete",
                quality=original.quality,
                losses=original.losses,
                duplicate_of=original.number,
            )
        else:
            known[key] = trial
            new += 1
        trials.append(trial)
    return new


def _keys(trials: list[Trial], problem: Problem) -> list[str]:
    return problem.space.keys(np.stack([t.genotype for t in trials])) if trials else []


def _evaluate(trials: list[Trial], problem: Problem, quality: QualityFunction, lag: int) -> None:
    """Finishes all pending trials but the last ``lag``."""
    pending = [i for i, t in enumerate(trials) if t.state == "pending"]
    pending = pending[: len(pending) - lag] if lag else pending
    if not pending:
        return
    rows = np.stack([trials[i].genotype for i in pending])
    values = quality(rows)
    losses = problem.losses(rows, values)
    for i, value, loss in zip(pending, values.tolist(), losses.tolist(), strict=True):
        if np.isnan(value):
            trials[i] = replace(trials[i], state="failed")
        else:
            trials[i] = replace(trials[i], state="complete", quality=value, losses=tuple(loss))
