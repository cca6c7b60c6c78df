"""The ledger: an Optuna study that holds every proposal, evaluation and failure.

Guarantees, on any Optuna storage:

* A proposal and the strategy's state are committed in one write, before anything is evaluated;
  trials are then made from it idempotently. A kill in between loses and repeats nothing.
* An architecture is written as one trial template, in one transaction.
* A claim is atomic; a dead worker's claim returns to pending.
* An evaluation is in the ledger before the next one begins.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..errors import StudyError
from ..records import Evaluation
from ..schema import Record, check_schema
from ..search_spaces import Genotypes, SearchSpace
from .history import History, Trial
from .lease import FileLease, Lease, SqlLease, is_dead, worker_id
from .objective import Objective
from .problem import Problem
from .storage import open_storage, storage_errors
from .strategy import Proposal

SCHEMA = "gnomon.ledger/1"
CLAIM_LIMIT_S = 120.0
"""A claim on another host whose heartbeat is older than this is given up."""

_IDENTITY, _PROPOSAL, _NOTE = "gnomon:identity", "gnomon:proposal", "gnomon:note:"
_CONSTRAINT = "constraints:latency"  # where Optuna's samplers and dashboard look for constraints


@dataclass(frozen=True)
class Claim(Record):
    """A trial that this worker alone may evaluate now."""

    trial_id: int
    number: int
    key: str


@dataclass(frozen=True)
class Counts(Record):
    """Trials by state; ``evaluated`` are distinct, ``duplicates`` cost nothing."""

    evaluated: int = 0
    duplicates: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def spent(self) -> int:
        """Evaluations paid for."""
        return self.evaluated + self.failed


class Ledger:
    """One study's trials, proposals and notes.

    Args:
        storage: An Optuna storage URL, or the path of a journal file ending in ``.journal``.
        name: Study name in that storage.
        space: The space whose genotypes are written.
    """

    def __init__(self, storage: str, name: str, space: SearchSpace) -> None:
        self.storage_url = storage
        self.name = name
        self.space = space
        self.worker = worker_id()
        self._storage = open_storage(storage)
        self._leases: dict[str, Lease] = {}
        self._study: optuna.Study | None = None
        self._trials_cache: dict[int, Trial] = {}
        self._queue: list[Claim] = []

    # ---- Opening ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the storage holds this study."""
        with storage_errors(self.storage_url):
            return self.name in optuna.get_all_study_names(self._storage)

    def create(self, objective: Objective, identity: Mapping[str, Any]) -> None:
        """Makes the study, or opens it if it is the same.

        Raises:
            StudyError: If a study of this name searches something else; the message names what.
        """
        with storage_errors(self.storage_url):
            self._study = optuna.create_study(
                study_name=self.name,
                storage=self._storage,
                directions=list(objective.directions),
                load_if_exists=True,
            )
            attributes = self._attributes()
            if _IDENTITY not in attributes:
                if self._frozen():
                    raise StudyError(
                        "this storage holds a study of that name that Gnomon did not make",
                        field="study.name",
                        value=self.name,
                        hint="Choose another study.name.",
                    )
                self._set(_IDENTITY, {"schema": SCHEMA, **identity})
                if len(objective.names) == len(self.study.directions):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                        self.study.set_metric_names(list(objective.names))
                return
        self._check_identity(attributes[_IDENTITY], identity)

    def open(self) -> None:
        """Opens an existing study to read it.

        Raises:
            StudyError: If there is none, or another program or version wrote it.
        """
        if not self.exists():
            raise StudyError(
                "no such study", field="study.name", value=self.name, hint=f"{self.storage_url} does not hold it."
            )
        with storage_errors(self.storage_url):
            self._study = optuna.load_study(study_name=self.name, storage=self._storage)
        self._check_identity(self._attributes().get(_IDENTITY, {}), None)

    @property
    def study(self) -> optuna.Study:
        if self._study is None:
            raise StudyError("the ledger is not open", field="study.name", value=self.name)
        return self._study

    def _check_identity(self, found: Mapping[str, Any], expected: Mapping[str, Any] | None) -> None:
        check_schema(found, SCHEMA, source=f"study {self.name}")
        if expected is None:
            return
        differing = [key for key in expected if found.get(key) != _json(expected[key])]
        if differing:
            shown = "; ".join(
                f"{key}: {found.get(key)!r} there, {_json(expected[key])!r} here" for key in differing[:3]
            )
            raise StudyError(
                f"the study exists and searches something else ({shown[:300]})",
                field="study.name",
                value=self.name,
                hint="Choose another study.name, or go on with study.resume=FOLDER.",
            )

    # ---- Notes ------------------------------------------------------------------------------

    def note(self, name: str) -> Any:
        """What :meth:`set_note` wrote under ``name``, or None."""
        return self._attributes().get(_NOTE + name)

    def set_note(self, name: str, value: Any) -> None:
        """Keeps small JSON with the study: reference latencies, spend, the final ranking."""
        self._set(_NOTE + name, _json(value))

    # ---- Proposing --------------------------------------------------------------------------

    def lease(self, purpose: str = "propose") -> Lease:
        """The right to do ``purpose`` alone: ``propose`` or ``finalise``; see :mod:`.lease`."""
        if purpose not in self._leases:
            engine = getattr(getattr(self._storage, "_backend", self._storage), "engine", None)
            self._leases[purpose] = (
                FileLease(f"{self.storage_url}.{purpose}")
                if engine is None
                else SqlLease(engine, f"{self.name}/{purpose}", self.worker)
            )
        return self._leases[purpose]

    def commit(self, proposal: Proposal, problem: Problem, history: History) -> int | None:
        """Commits a proposal and makes its trials; returns how many await evaluation, or None if
        the lease was lost meanwhile and nothing was committed.

        Rows equal to evaluated ones become complete copies; rows equal to pending or failed ones,
        or repeated within the proposal, are dropped. Call under the lease.
        """
        self.materialise(problem)
        genotypes = self.space.canonical(self.space.algebra.validate(proposal.genotypes))
        evaluated = dict(zip(self.space.keys(_rows(history.evaluated, self.space)), history.evaluated, strict=True))
        taken = set(self.space.keys(_rows(history.trials, self.space))) - set(evaluated)
        attributes = proposal.attributes or ({},) * len(genotypes)
        entries = []
        for key, own in zip(self.space.keys(genotypes), attributes, strict=True):
            if key in taken:
                continue
            original = evaluated.get(key)
            if original is None:
                taken.add(key)
            entries.append(
                {"key": key, "attributes": dict(own), "duplicate_of": None if original is None else original.number}
            )
        if not self.lease().renew():
            return None
        self._set(_PROPOSAL, _json({"step": history.step + 1, "state": proposal.state, "entries": entries}))
        self.materialise(problem)
        return sum(entry["duplicate_of"] is None for entry in entries)

    def materialise(self, problem: Problem) -> None:
        """Makes the trials of the committed proposal that do not exist yet (after a kill)."""
        proposal = self._attributes().get(_PROPOSAL)
        if proposal is None:
            return
        trials = self._frozen()
        have = {t.user_attrs.get("index") for t in trials if t.user_attrs.get("step") == proposal["step"]}
        by_number = {t.number: t for t in trials}
        for index, entry in enumerate(proposal["entries"]):
            if index in have:
                continue
            original = None if entry["duplicate_of"] is None else by_number[entry["duplicate_of"]]
            template = self._template(entry, proposal["step"], index, problem, original)
            with storage_errors(self.storage_url):
                self._storage.create_new_trial(self.study._study_id, template)

    def _template(
        self, entry: Mapping[str, Any], step: int, index: int, problem: Problem, original: FrozenTrial | None
    ) -> FrozenTrial:
        row = self.space.algebra.from_key(entry["key"])
        config = self.space.config(row)
        mean, std = problem.latency.predict(row[None])
        violation = float(problem.objective.violation(mean, std, problem.limit_ms)[0])
        user = {
            "architecture": entry["key"],
            "step": step,
            "index": index,
            "latency_ms": float(mean[0]),
            "latency_std_ms": float(std[0]),
        }
        if original is not None:
            user |= {"duplicate_of": original.number, "evaluation": original.user_attrs["evaluation"]}
        return create_trial(
            state=TrialState.WAITING if original is None else TrialState.COMPLETE,
            values=None if original is None else original.values,
            params=config,
            distributions={
                d.name: CategoricalDistribution(d.choices) for d in self.space.decisions if d.name in config
            },
            user_attrs=user,
            system_attrs={**entry["attributes"], _CONSTRAINT: violation},
        )

    # ---- Evaluating -------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        """The next pending trial, for this worker alone; None if nothing is pending."""
        if not self._queue:
            waiting = self._frozen(TrialState.WAITING)
            self._queue = [Claim(t._trial_id, t.number, t.user_attrs["architecture"]) for t in waiting]
        while self._queue:
            claim = self._queue.pop(0)
            if not self._is_waiting(claim):
                continue  # taken since the queue was read; signing it would hide who has it
            # Signed before it is taken: a worker that dies in between leaves no claim without a name.
            if self.heartbeat(claim) and self._finish(claim, TrialState.RUNNING):
                self.heartbeat(claim)  # another worker may have signed it and lost
                return claim
        return None

    def heartbeat(self, claim: Claim) -> bool:
        """Says that this worker still evaluates ``claim``; False if another worker finished it."""
        return self._write(claim, "claim", {"worker": self.worker, "time": time.time()})

    def complete(self, claim: Claim, evaluation: Evaluation, problem: Problem) -> None:
        """Writes an evaluation and its objective values. Changes nothing if the trial is finished:
        the claim was given up (a machine that slept), and another worker was faster."""
        row = self.space.algebra.from_key(claim.key)[None]
        quality = np.array([evaluation.quality])
        values = problem.objective.values(problem.metrics(row, quality), problem.limit_ms)[0]
        # First the evaluation, then the state: a kill in between is mended by `reap`.
        if self._write(claim, "evaluation", evaluation.to_dict()):
            self._finish(claim, TrialState.COMPLETE, [float(v) for v in values])

    def fail(self, claim: Claim, error: str) -> None:
        """Writes that this architecture cannot be evaluated; it is not tried again."""
        if self._write(claim, "error", error):
            self._finish(claim, TrialState.FAIL)

    def give_back(self, claim: Claim) -> None:
        """Returns a claim to pending, for example on Ctrl-C."""
        self._finish(claim, TrialState.WAITING)

    def _is_waiting(self, claim: Claim) -> bool:
        with storage_errors(self.storage_url):
            return self._storage.get_trial(claim.trial_id).state == TrialState.WAITING

    def _write(self, claim: Claim, key: str, value: Any) -> bool:
        with storage_errors(self.storage_url):
            try:
                self._storage.set_trial_user_attr(claim.trial_id, key, value)
            except optuna.exceptions.UpdateFinishedTrialError:
                return False
        return True

    def _finish(self, claim: Claim, state: TrialState, values: list[float] | None = None) -> bool:
        with storage_errors(self.storage_url):
            try:
                return self._storage.set_trial_state_values(claim.trial_id, state, values)
            except optuna.exceptions.UpdateFinishedTrialError:
                return False

    def reap(self, problem: Problem) -> int:
        """Returns claims of dead workers to pending, and completes those whose evaluation was
        already written. Call under the lease. Returns how many were returned."""
        returned = 0
        for trial in self._frozen(TrialState.RUNNING):
            owner = trial.user_attrs["claim"]
            if not is_dead(owner["worker"]) and time.time() - owner["time"] < CLAIM_LIMIT_S:
                continue
            claim = Claim(trial._trial_id, trial.number, trial.user_attrs["architecture"])
            if "evaluation" in trial.user_attrs:
                self.complete(claim, Evaluation.from_dict(trial.user_attrs["evaluation"]), problem)
            else:
                self.give_back(claim)
                returned += 1
        return returned

    # ---- Reading ----------------------------------------------------------------------------

    def history(self, frozen: Sequence[FrozenTrial] | None = None) -> History:
        """What a strategy may know, in order of trial number; of ``frozen`` trials that were read
        before, so that both tell of the same moment."""
        signs = np.array([1.0 if d == optuna.study.StudyDirection.MINIMIZE else -1.0 for d in self.study.directions])
        proposal = self._attributes().get(_PROPOSAL) or {"step": 0, "state": None}
        trials = tuple(self._trial(t, signs) for t in (self._frozen() if frozen is None else frozen))
        return History(trials, proposal["state"], proposal["step"])

    def _trial(self, frozen: FrozenTrial, signs: np.ndarray[Any, Any]) -> Trial:
        cached = self._trials_cache.get(frozen.number)
        if cached is not None:
            return cached
        user = frozen.user_attrs
        state = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}.get(frozen.state, "pending")
        complete = state == "complete"
        trial = Trial(
            number=frozen.number,
            genotype=self.space.algebra.from_key(user["architecture"]),
            state=state,  # type: ignore[arg-type]
            quality=user["evaluation"]["quality"] if complete else None,
            losses=tuple((np.array(frozen.values) * signs).tolist()) if complete else None,
            violation=frozen.system_attrs[_CONSTRAINT],
            attributes={k: v for k, v in frozen.system_attrs.items() if k != _CONSTRAINT},
            duplicate_of=user.get("duplicate_of"),
            stopped_at=user["evaluation"].get("stopped_at") if complete else None,
        )
        if frozen.state.is_finished():
            self._trials_cache[frozen.number] = trial
        return trial

    def frozen_trials(self) -> list[FrozenTrial]:
        """All Optuna trials in order of number, for reports."""
        return self._frozen()

    def counts(self) -> Counts:
        trials = self._frozen()
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        duplicates = sum("duplicate_of" in t.user_attrs for t in complete)
        return Counts(
            evaluated=len(complete) - duplicates,
            duplicates=duplicates,
            failed=sum(t.state == TrialState.FAIL for t in trials),
            running=sum(t.state == TrialState.RUNNING for t in trials),
            waiting=sum(t.state == TrialState.WAITING for t in trials),
        )

    def _frozen(self, *states: TrialState) -> list[FrozenTrial]:
        with storage_errors(self.storage_url):
            return self.study.get_trials(deepcopy=False, states=states or None)

    def _attributes(self) -> dict[str, Any]:
        with storage_errors(self.storage_url):
            return self._storage.get_study_system_attrs(self.study._study_id)

    def _set(self, key: str, value: Any) -> None:
        with storage_errors(self.storage_url):
            self._storage.set_study_system_attr(self.study._study_id, key, value)


def _rows(trials: tuple[Trial, ...], space: SearchSpace) -> Genotypes:
    rows = [t.genotype for t in trials]
    return np.stack(rows) if rows else np.zeros((0, len(space.decisions)), dtype=np.int8)


def _json(value: Any) -> Any:
    """``value`` as it comes back from JSON, so that comparisons are of like with like."""
    return json.loads(json.dumps(value, default=lambda o: o.item() if hasattr(o, "item") else list(o)))
