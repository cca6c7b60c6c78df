"""The gradients of one training step of a supernet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import nn

from ...errors import TaskError
from ...search_spaces import SearchSpace
from ...search_spaces.elastic import ElasticModel
from ..parallel import Processes
from ..training_data import Batch, TrainingData
from .distillation import dropout, soft_loss
from .rule import Lesson

Teacher: TypeAlias = nn.Module | Literal["first"] | None
"""Who gives a step's soft targets: a network, the step's first lesson, or nobody."""


def take_step(
    model: ElasticModel,
    space: SearchSpace,
    data: TrainingData,
    batch: Batch,
    lessons: Sequence[Lesson],
    teacher: Teacher,
    processes: Processes,
) -> float:
    """Adds the gradients of all lessons on this process's part of a batch; the loss, as this process's share of it.

    Args:
        model: In training mode; the last lesson's network stays selected.
        space: Of the lessons.
        data: Gives logits and loss.
        batch: This process's part.
        lessons: In order.
        teacher: None only where no lesson needs one.
        processes: Among which the batch is divided.

    Raises:
        TaskError: If the loss is not finite.
    """
    total, share, soft = 0.0, 0.0, None
    if isinstance(teacher, nn.Module):
        with torch.no_grad():
            soft = data.logits(teacher, batch)
    for index, lesson in enumerate(lessons):
        model.select(space.config(lesson.genotype))
        with dropout(model, lesson.dropout):
            logits = data.logits(model, batch)
        if index == 0:
            share = processes.share(len(logits))
        loss = share * _loss(data, batch, lesson, logits, soft)
        value = loss.item()
        if not math.isfinite(value):
            raise TaskError(
                f"training diverged: the loss of {space.keys(lesson.genotype[None])[0]} is {value}",
                hint="Try a smaller rate or quality.training.max_grad_norm=1.",
            )
        loss.backward()
        total += value
        if teacher == "first" and index == 0:
            soft = logits.detach()
    return total


def _loss(
    data: TrainingData, batch: Batch, lesson: Lesson, logits: torch.Tensor, soft: torch.Tensor | None
) -> torch.Tensor:
    """The lesson's weighted loss, a mean over this process's predictions."""
    parts = []
    if lesson.truth:
        parts.append(lesson.truth * data.loss(logits, batch))
    if lesson.teacher:
        if soft is None:
            raise TaskError("this lesson needs a teacher", field="lesson.teacher", value=lesson.teacher)
        parts.append(lesson.teacher * soft_loss(logits, soft))
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]
