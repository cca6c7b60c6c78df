"""How long a training step of a supernet takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from ...search_spaces import SearchSpace
from ...search_spaces.elastic import ElasticModel
from ..parallel import Processes
from ..torch_state import seeded
from ..training import make_optimizer
from ..training_data import Batch, TrainingData
from ..training_settings import TrainingSettings
from .rule import TrainingRule
from .step import Teacher, take_step

WARM_UP = 1


def step_seconds(
    model: ElasticModel,
    space: SearchSpace,
    data: TrainingData,
    settings: TrainingSettings,
    rule: TrainingRule,
    batches: Sequence[Batch],
) -> float:
    """Mean seconds of a step in the middle of a training, over ``batches`` but the first; trains ``model``."""
    schedule = rule.schedule(space, 1000 * len(batches), 0)
    optimizer = make_optimizer(model, settings, fused=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    middle = 500 * len(batches)
    teacher = None if schedule.teacher_step is None else model.extract(space.config(schedule.lessons(0)[0].genotype))
    model.train()
    times = []
    with seeded(0), torch.enable_grad():
        for step, batch in enumerate(batches, start=middle):
            start, start_busy = time.perf_counter(), time.process_time()
            optimizer.zero_grad(set_to_none=True)
            first: Teacher = "first" if schedule.teacher_is_first else teacher
            take_step(model, space, data, batch, schedule.lessons(step), first, Processes())
            Processes().sum_gradients(parameters)
            optimizer.step()
            # Of a busy machine the processor's time, of several threads the clock's.
            times.append(min(time.perf_counter() - start, time.process_time() - start_busy))
    timed = times[WARM_UP:] or times
    return sum(timed) / len(timed)
