"""What all evaluations of a study share, made once: by the worker that has the lease, while the others wait."""

from __future__ import annotations

import time
from typing import Protocol

from ..tasks import Evaluator, Progress
from .ledger import Ledger
from .setup import Components

NOTE = "preparation"
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


def seconds_spent(ledger: Ledger) -> float:
    """Of the preparation, over all its sessions; 0 where there was none."""
    return float((ledger.note(NOTE) or {}).get("seconds", 0.0))
