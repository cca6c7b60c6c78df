"""Asks a model on a device: outputs of given inputs, from the same child process that measures."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    with tempfile.TemporaryDirectory(prefix="gnomon-") as name:
        folder = Path(name)
        model = device.prepare(deployable, folder)
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
