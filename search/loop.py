"""The run loop of one worker: claim, evaluate, write down; propose when nothing is pending."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, TypeAlias

import numpy as np

from ..errors import GnomonError, StudyError
from .history import History
from .ledger import Claim, Counts, Ledger
from .past import past_evaluations
from .problem import Problem
from .setup import Components
from .strategies.random import RandomStrategy
from .strategy import Proposal

HEARTBEAT_S = 15.0
WAIT_S = 0.2
MAX_FAILURES_IN_A_ROW = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopEvent:
    """What happened, for progress bars: an evaluation, or a first look at an old study."""

    counts: Counts
    quality: float | None = None


OnEvent = Callable[[LoopEvent], None]


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of one proposal: from (run seed, step) alone, so resuming changes nothing."""
    return np.random.default_rng([seed, step])


def evaluation_seed(seed: int, key: str) -> int:
    """The seed of one evaluation: from (run seed, architecture), whoever evaluates it and when."""
    return int.from_bytes(sha256(f"{seed}:{key}".encode()).digest()[:4], "little")


def run_worker(ledger: Ledger, problem: Problem, components: Components, on_event: OnEvent | None = None) -> None:
    """Works on a study until its budget is spent, its time is over or its space is exhausted.

    Raises:
        StudyError: If evaluations fail one after the other, or the ledger cannot be written.
    """
    deadline = None if components.study.time_limit_s is None else time.monotonic() + components.study.time_limit_s
    failures = 0
    while deadline is None or time.monotonic() < deadline:
        claim = ledger.claim()
        if claim is not None:
            failures = 0 if _evaluate(ledger, problem, components, claim, on_event) else failures + 1
            if failures >= MAX_FAILURES_IN_A_ROW:
                raise StudyError(
                    f"{failures} evaluations in a row failed; the last: {_last_error(ledger)}",
                    hint="Mend the cause and run the same command again: nothing is lost.",
                )
            continue
        outcome = _propose(ledger, problem, components)
        if outcome == "finished":
            return
        if outcome == "wait":
            time.sleep(WAIT_S)


def _evaluate(ledger: Ledger, problem: Problem, components: Components, claim: Claim, on_event: OnEvent | None) -> bool:
    """Evaluates one claim; False if the evaluation failed. A kill or Ctrl-C loses only this one."""
    space = components.space
    architecture = space.architecture(space.algebra.from_key(claim.key))
    try:
        with _heartbeat(ledger, claim):
            if components.evaluator.observes:
                components.evaluator.observe(*past_evaluations(ledger, problem, architecture))
            evaluation = components.evaluator.evaluate(
                architecture, seed=evaluation_seed(components.study.seed, claim.key)
            )
        if not np.isfinite(evaluation.quality):
            raise GnomonError(f"quality is {evaluation.quality}")
    except KeyboardInterrupt:
        ledger.give_back(claim)
        raise
    except StudyError:
        raise
    except Exception as error:  # A user's code may raise anything; it costs one evaluation.
        if not isinstance(error, GnomonError):
            log.warning("evaluation of %s failed:\n%s", claim.key, traceback.format_exc())
        ledger.fail(claim, f"{type(error).__name__}: {error}"[:1000])
        _report(ledger, on_event, None)
        return False
    ledger.complete(claim, evaluation, problem)
    _report(ledger, on_event, evaluation.quality)
    return True


def _report(ledger: Ledger, on_event: OnEvent | None, quality: float | None) -> None:
    if on_event is not None:
        on_event(LoopEvent(ledger.counts(), quality))


@contextmanager
def _heartbeat(ledger: Ledger, claim: Claim) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_S):
            try:
                ledger.heartbeat(claim)
            except StudyError as error:  # The next write of the main thread will say it aloud.
                log.warning("heartbeat: %s", error)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


Outcome: TypeAlias = Literal["proposed", "wait", "finished"]


def _propose(ledger: Ledger, problem: Problem, components: Components) -> Outcome:
    """Proposes the next batch, if it is this worker's turn and the budget allows.

    ``wait``: another worker is proposing, or evaluates what may still fail or come back.
    """
    study = components.study
    with ledger.lease().held() as mine:
        if not mine:
            return "wait"
        ledger.materialise(problem)
        ledger.reap(problem)
        counts = ledger.counts()
        if counts.waiting:
            return "proposed"
        remaining = study.evaluations - counts.spent - counts.running
        if remaining <= 0:
            return "wait" if counts.running else "finished"
        history = ledger.history()
        n = min(max(study.batch, study.workers), remaining)
        proposal = components.strategy.propose(problem, history, n, step_rng(study.seed, history.step))
        new = ledger.commit(proposal, problem, history)
        if new == 0:
            new = _fill(ledger, problem, ledger.history(), n, study.seed)
        if new is None:  # the lease was lost, and nothing was committed
            return "wait"
        return "proposed" if new else ("wait" if counts.running else "finished")


def _fill(ledger: Ledger, problem: Problem, history: History, n: int, seed: int) -> int | None:
    """Proposes random unseen architectures where a strategy had none; 0 if none are left.

    The strategy's state is kept as it was.
    """
    rows = RandomStrategy().propose(problem, history, n, step_rng(seed, history.step)).genotypes
    return ledger.commit(Proposal(rows, history.state), problem, history) if len(rows) else 0


def _last_error(ledger: Ledger) -> str:
    errors = [t.user_attrs["error"] for t in ledger.frozen_trials() if "error" in t.user_attrs]
    return str(errors[-1]) if errors else "unknown"
