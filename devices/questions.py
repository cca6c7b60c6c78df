"""Asks a model on a device: outputs of given inputs, from the same child process that measures."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from ..errors import MeasurementError
from ..search_spaces import Deployable
from .answers import Array, read_answers
from .isolation import RoundResult, run_round
from .jobs import RoundJob
from .protocol import Protocol

if TYPE_CHECKING:
    from .local import LocalDevice

TIMEOUT_S = 600.0
"""For all inputs of one call."""


class _Prepared:
    """A model as the runner loads it, kept for further questions: converting may take longer than answering."""

    def __init__(self, device: LocalDevice, deployable: Deployable) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gnomon-")
        self.path = Path(self._folder.name)
        self.model = device.prepare(deployable, self.path)


_LAST: WeakKeyDictionary[LocalDevice, tuple[tuple[str, int], _Prepared]] = WeakKeyDictionary()
"""What each device was last asked about, by model and calibration."""


def _prepared(device: LocalDevice, deployable: Deployable) -> _Prepared:
    key = (deployable.id, id(getattr(device, "calibration", None)))
    last = _LAST.get(device)
    if last is None or last[0] != key:
        last = _LAST[device] = (key, _Prepared(device, deployable))
    return last[1]


def ask(
    device: LocalDevice,
    deployable: Deployable,
    inputs: Mapping[str, Array],
    run: Callable[[RoundJob], RoundResult] = run_round,
) -> dict[str, Array]:
    """Outputs of graph ``main`` by name ``(N, batch, ...)`` for inputs by name ``(N, batch, ...)``.

    Args:
        run: Where the child process runs; on this machine by default.

    Raises:
        DeviceError: If the runtime does not start.
        MeasurementError: If the model cannot be prepared, crashes, or gives wrong answers.
    """
    prepared = _prepared(device, deployable)
    model = prepared.model
    with tempfile.TemporaryDirectory(prefix="questions-", dir=prepared.path) as name:
        folder = Path(name)
        questions, replies = folder / "questions.npz", folder / "replies.npz"
        np.savez(questions, **dict(inputs))  # type: ignore[arg-type]
        main = replace(model.graphs["main"], questions=str(questions), replies=str(replies))
        job = RoundJob(
            device.runner,
            device.threads,
            device.options(),
            (replace(model, graphs={**model.graphs, "main": main}),),
            Protocol(1, 1, warmup_runs=0, min_runs=1, max_runs=1, interleave=False, timeout_s=TIMEOUT_S),
            import_paths=tuple(os.path.abspath(path) for path in sys.path),
        )
        result = run(job)
        if 0 in result.errors:
            raise MeasurementError(f"{deployable.name} gives no answers on {device.name}: {result.errors[0]}")
        return dict(read_answers(replies))
