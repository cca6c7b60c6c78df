"""What a study trains before its first evaluation, once: by the worker that has the lease, while the others wait.

That is what all evaluations share (a supernet), and what a strategy proposes from (a differentiable search).
"""

from __future__ import annotations

import time
from typing import Protocol

from ..tasks import Evaluator, Progress
from .ledger import Ledger
from .problem import Problem
from .setup import Components
from .strategy import TrainedStrategy

NOTE = "preparation"
STRATEGY_NOTE = "strategy_training"
STRATEGY_FOLDER = "strategy"
"""In the study's folder."""
WAIT_S = 1.0
"""Between looks at the lease while another worker prepares."""


class PreparationDisplay(Protocol):
    """What a user sees of it."""

    def phase(self, text: str) -> None: ...

    @property
    def preparation(self) -> Progress: ...


def prepare(ledger: Ledger, components: Components, display: PreparationDisplay) -> None:
    """Calls :meth:`Evaluator.prepare`, one worker at a time; the later ones find everything done.

    Raises:
        GnomonError: If it fails; the same command goes on where it was.
    """
    evaluator, study = components.evaluator, components.study
    if type(evaluator).prepare is Evaluator.prepare:
        return
    display.phase(f"preparing what all evaluations share: {evaluator.name}")
    while True:
        with ledger.lease("prepare").held() as mine:
            if mine:
                evaluator.prepare(study.path, seed=study.seed, progress=display.preparation)
                shared = evaluator.shared_training()
                if shared is not None:
                    ledger.set_note(NOTE, {"seconds": shared.seconds})
                return
        time.sleep(WAIT_S)


def train_strategy(
    ledger: Ledger, components: Components, problem: Problem, display: PreparationDisplay | None = None
) -> None:
    """Calls :meth:`TrainedStrategy.run`, one worker at a time; the later ones find everything done.

    Raises:
        GnomonError: If it fails; the same command goes on where it was.
    """
    strategy, study = components.strategy, components.study
    if not isinstance(strategy, TrainedStrategy):
        return
    progress = None
    if display is not None:
        display.phase(f"training the strategy: {strategy.name}")
        progress = display.preparation
    while True:
        with ledger.lease("prepare").held() as mine:
            if mine:
                folder = study.path / STRATEGY_FOLDER
                seconds = strategy.run(problem, components.task, folder, seed=study.seed, progress=progress)
                ledger.set_note(STRATEGY_NOTE, {"seconds": seconds})
                return
        time.sleep(WAIT_S)


def seconds_spent(ledger: Ledger) -> float:
    """Of the preparation, over all its sessions; 0 where there was none."""
    return sum(float((ledger.note(note) or {}).get("seconds", 0.0)) for note in (NOTE, STRATEGY_NOTE))
