"""The minibatches at which untrained networks are looked at.

Shapes: B examples in a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import TaskError
from ..base import Task
from ..torch_state import derived_seed
from .base import Minibatch

INPUTS = ("task", "gaussian")
"""Where inputs may come from: the task's train split, or standard-normal noise with random labels."""


def minibatches(task: Task, inputs: str, count: int, size: int, seed: int) -> list[Minibatch]:
    """``count`` minibatches of ``size`` distinct examples; deterministic by seed.

    Raises:
        TaskError: If the task has no data, too few, or none of images.
    """
    if inputs == "gaussian":
        return _gaussian(task, count, size, seed)
    images, labels = _examples(task, count * size, seed)
    parts = zip(torch.split(images, size), torch.split(labels, size), strict=True)
    return [Minibatch(x, y) for x, y in parts]


def _gaussian(task: Task, count: int, size: int, seed: int) -> list[Minibatch]:
    generator = torch.Generator().manual_seed(derived_seed(seed))
    made = []
    for _ in range(count):
        images = torch.randn(size, *task.input_shape, generator=generator)
        made.append(Minibatch(images, torch.randint(0, len(task.labels), (size,), generator=generator)))
    return made


def _examples(task: Task, wanted: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised, augmented inputs ``(wanted, C, H, W)`` of the train split with their labels, as a training sees
    them in its first epoch."""
    try:
        data = task.training_data()
    except TaskError as error:
        raise TaskError(
            f"proxies need examples, and {task.name} has none to give: {error.problem}",
            field="quality.inputs",
            value="task",
            allowed="gaussian, for random inputs and labels, or a task with images",
        ) from error
    images: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    for batch in data.batches(seed, 0):
        x, y = _checked(batch, task)
        images.append(x)
        labels.append(y)
        if sum(map(len, labels)) >= wanted:
            return torch.cat(images)[:wanted], torch.cat(labels)[:wanted]
    raise TaskError(
        "the train split is too small for these minibatches",
        field="quality.batch_size",
        value=wanted,
        allowed=f"{sum(map(len, labels))} examples in all minibatches together",
    )


def _checked(batch: object, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(batch, Sequence) and len(batch) == 2:
        inputs, labels = batch
        if isinstance(inputs, torch.Tensor) and inputs.is_floating_point() and inputs.dim() == 4:
            return inputs, labels
    raise TaskError("proxies look at images with labels", field="task", value=task.name, allowed="an image task")
