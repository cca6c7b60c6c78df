"""Any Optuna sampler as a strategy, rebuilt from the ledger at every step.

Shapes: n proposed rows, D decisions.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import StrategyError
from ...search_spaces import GENE_DTYPE, Decision, Genotypes, SearchSpace
from ..history import History, Trial
from ..problem import Problem
from ..strategy import Proposal, Strategy

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ASKED = "gnomon:asked"
"""Attribute with the row as the sampler asked for it, where the canonical row differs."""

SEED = "gnomon:sampler_seed"
CONSTRAINT = "latency"
PARENTS = ":parent:"
"""In the name of the study attributes where Optuna's genetic samplers keep each generation's parents."""

EXTRA_ASKS = 3
"""Asks beyond the wanted ones, as a multiple of them, while everything asked for is known."""


class OptunaStrategy(Strategy):
    """An Optuna sampler on the ledger's own trials.

    Samplers keep part of their memory in attributes of trials (the generation of a genetic
    sampler) and of the study (the parents of a generation, the position in a quasi-random
    sequence). Rebuilt from parameters and values alone, such a sampler silently becomes random
    search. So the attributes are carried along: those of a trial in ``Trial.attributes``, those of
    the study in the proposal's state. Each step makes an in-memory study of the whole history,
    failed and pending trials and copies of duplicates included, and asks a new sampler, seeded
    from ``rng``.

    With ``copies``, a row that was evaluated already is proposed as it is: the ledger copies its
    values for nothing, and a genetic sampler needs its child to complete the generation. While
    *all* rows are known, the sampler is asked again, a bounded number of times.

    Ordered decisions are integers to the sampler, the others categorical. All decisions of the
    space are asked for, active or not; the sampler is told the values that it asked for. The
    latency limit is a constraint to samplers that know constraints.

    Args:
        sampler: A class of ``optuna.samplers``, for example ``TPESampler``.
        arguments: Of its constructor, other than ``seed``.
        copies: Whether rows that were evaluated already are proposed again.
        keep_seed: Seed the sampler alike at every step, for quasi-random sequences, of which
            each step continues the same one.
    """

    name: ClassVar[str] = "optuna"
    forgotten: ClassVar[tuple[str, ...]] = ("tpe:relative_params", "gp:relative_params")
    """Prefixes of trial attributes that are of no use once a trial has its parameters."""

    def __init__(
        self,
        sampler: str = "TPESampler",
        arguments: Mapping[str, Any] | None = None,
        copies: bool = False,
        keep_seed: bool = False,
    ) -> None:
        self.sampler = sampler
        self.arguments = dict(arguments or {})
        self.copies = copies
        self.keep_seed = keep_seed

    def settings(self) -> dict[str, Any]:
        names = ("sampler", "arguments", "copies", "keep_seed")
        return {name: getattr(self, name) for name in names}

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        self._check(problem)
        state = dict(history.state or {})
        seed = int(rng.integers(2**31))
        if self.keep_seed:
            seed = state.setdefault(SEED, seed)
        with _quiet():
            study = self._study(problem, history, state, seed)
            rows, attributes = self._ask(study, problem.space, history, n)
        return Proposal(rows, self._kept_state(study, state), attributes)

    # ---- The sampler ------------------------------------------------------------------------

    def make_sampler(self, seed: int) -> BaseSampler:
        """A new sampler of the configured class.

        Raises:
            StrategyError: If there is no such class, or it does not take these arguments.
        """
        import optuna

        known = sorted(name for name in optuna.samplers.__all__ if name.endswith("Sampler") and name != "BaseSampler")
        if self.sampler not in known:
            raise StrategyError(
                "no such sampler in Optuna", field="strategy.sampler", value=self.sampler, allowed=known
            )
        sampler_class = getattr(optuna.samplers, self.sampler)
        accepted = inspect.signature(sampler_class).parameters
        unknown = sorted(set(self.arguments) - set(accepted) | {"seed"} & set(self.arguments))
        if unknown or "seed" not in accepted:
            raise StrategyError(
                f"{self.sampler} does not take these arguments",
                field="strategy.arguments",
                value=unknown or ["seed"],
                allowed=[name for name in accepted if name != "seed"],
            )
        try:
            sampler: BaseSampler = sampler_class(seed=seed, **self.arguments)
        except (TypeError, ValueError) as error:
            raise StrategyError(f"{self.sampler}: {error}", field="strategy.arguments", value=self.arguments) from error
        return sampler

    def distribution(self, decision: Decision) -> BaseDistribution:
        """What the sampler sees of a decision: its choice indices."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if decision.ordered:
            return IntDistribution(0, len(decision.choices) - 1)
        return CategoricalDistribution(range(len(decision.choices)))

    def _distributions(self, space: SearchSpace) -> dict[str, BaseDistribution]:
        return {decision.name: self.distribution(decision) for decision in space.decisions}

    def _check(self, problem: Problem) -> None:
        count = len(problem.objective.directions)
        if self.max_objectives is not None and count > self.max_objectives:
            raise StrategyError(
                f"optimises one value, and this objective has {count}",
                field="strategy",
                value=self.name,
                allowed="objective.metrics=[quality], objective=mnasnet_soft or mnasnet_hard, or another strategy",
            )

    # ---- Rebuilding -------------------------------------------------------------------------

    def _study(self, problem: Problem, history: History, state: Mapping[str, Any], seed: int) -> Study:
        """The history as an in-memory study; trial ids are positions in the history."""
        import optuna

        storage = optuna.storages.InMemoryStorage()
        directions = [optuna.study.StudyDirection.MINIMIZE] * len(problem.objective.directions)
        study = optuna.create_study(storage=storage, sampler=self.make_sampler(seed), directions=directions)
        for key, value in state.items():
            storage.set_study_system_attr(study._study_id, key, value)
        distributions = _Shared(self._distributions(problem.space))
        for trial in history.trials:
            storage.create_new_trial(study._study_id, _frozen(trial, distributions, problem.limit_ms is not None))
        self.prepare(study, distributions)
        return study

    def prepare(self, study: Study, distributions: dict[str, BaseDistribution]) -> None:
        """What a sampler needs besides its trials, once they are in the study. Nothing here."""

    def _kept_state(self, study: Study, state: Mapping[str, Any]) -> dict[str, Any] | None:
        """The study's attributes; of the parents of generations only the last two are read again."""
        attributes = dict(study._storage.get_study_system_attrs(study._study_id))
        generations = {key: int(key.rpartition(PARENTS)[2]) for key in attributes if PARENTS in key}
        for key, generation in generations.items():
            if generation < max(generations.values()) - 1:
                del attributes[key]
        if SEED in state:
            attributes[SEED] = state[SEED]
        return json.loads(json.dumps(attributes)) or None

    # ---- Asking -----------------------------------------------------------------------------

    def _ask(
        self, study: Study, space: SearchSpace, history: History, n: int
    ) -> tuple[Genotypes, tuple[Mapping[str, Any], ...]]:
        """Up to ``n`` rows with their attributes; one at least is new if that can be had."""
        evaluated = set(space.keys(history.genotypes)) if history.evaluated else set()
        taken = set(space.keys(history.known)) if history.trials else set()
        new: list[tuple[Genotypes, Mapping[str, Any]]] = []
        copies: list[tuple[Genotypes, Mapping[str, Any]]] = []
        for _ in range(n * (1 + EXTRA_ASKS)):
            if len(new) + len(copies) >= n and new:
                break
            row, own = self._ask_one(study, space)
            (key,) = space.keys(row[None])
            if key not in taken:
                taken.add(key)
                new.append((row, own))
            elif self.copies and key in evaluated:
                copies.append((row, own))
        chosen = (new + copies)[:n]
        rows = np.stack([row for row, _ in chosen]) if chosen else np.zeros((0, len(space.decisions)), dtype=GENE_DTYPE)
        return rows, tuple(own for _, own in chosen)

    def _ask_one(self, study: Study, space: SearchSpace) -> tuple[Genotypes, dict[str, Any]]:
        trial = study.ask(self._distributions(space))
        asked = np.array([[trial.params[d.name] for d in space.decisions]], dtype=GENE_DTYPE)
        row = space.canonical(asked)[0]
        attributes = dict(study._storage.get_trial_system_attrs(trial._trial_id))
        kept = {key: value for key, value in attributes.items() if not key.startswith(self.forgotten)}
        if not np.array_equal(row, asked[0]):
            kept[ASKED] = asked[0].tolist()
        return row, kept


class _Shared(dict[str, Any]):
    """A dictionary that nobody changes, which copies of trials may share: copying the parameters
    and distributions of hundreds of trials would take most of a step."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def _frozen(trial: Trial, distributions: _Shared, constrained: bool) -> FrozenTrial:
    """One trial of the history as Optuna keeps it."""
    from optuna.trial import FrozenTrial, TrialState

    states = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL, "pending": TrialState.RUNNING}
    attributes = dict(trial.attributes)
    genes = attributes.pop(ASKED, None) or trial.genotype.tolist()
    complete = trial.state == "complete"
    started = datetime.fromtimestamp(0)
    frozen = FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=states[trial.state],
        value=None,
        values=trial.losses if complete else None,
        datetime_start=started,
        datetime_complete=None if trial.state == "pending" else started,
        params=_Shared(zip(distributions, genes, strict=True)),
        distributions=distributions,
        user_attrs={},
        system_attrs=attributes,
        intermediate_values={},
    )
    if constrained and complete:
        frozen.set_constraint(CONSTRAINT, trial.violation)
    return frozen


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its log lines and its warnings of experimental features."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
