"""How long a training is going to take, from a few of its steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .training_data import TrainingData
from .training_settings import TrainingSettings

if TYPE_CHECKING:
    from torch import nn


def training_hint_s(model: nn.Module, data: TrainingData, settings: TrainingSettings, budget: float) -> float:
    """Rough seconds of ``budget`` epochs: times a few steps and one validation pass of a copy of ``model``."""
    from .training import Trainer

    trial, seconds = copy.deepcopy(model), []
    for steps in (2, 2, 10):  # The first is a warm-up.
        part = steps / data.batches_per_epoch
        seconds.append(busy_s(Trainer(trial, data, settings, budget=part, seed=0, identity={}).run))
    per_step = max(0.0, (seconds[2] - seconds[1]) / 8)
    validation = max(0.0, seconds[1] - 2 * per_step)
    return budget * (data.batches_per_epoch * per_step + validation)


def busy_s(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes: of a busy machine the processor's time, of several threads the clock's."""
    start, start_busy = time.perf_counter(), time.process_time()
    work()
    return min(time.perf_counter() - start, time.process_time() - start_busy)
