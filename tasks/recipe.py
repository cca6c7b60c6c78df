"""A task's training recipe with changes, for evaluators that train in a way of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .base import Task
from .training_settings import TrainingSettings

OF_THE_DATA = ("batch_size", "label_smoothing", "shift", "flip")
"""Parts of a recipe that are the task's own."""


def changed_recipe(task: Task, changes: Mapping[str, Any], field: str) -> TrainingSettings:
    """The task's recipe with changes.

    Args:
        task: Whose ``training`` is the recipe, if it is :class:`TrainingSettings`.
        changes: Some of its fields.
        field: Where they come from, for messages.

    Raises:
        ConfigError: If a change is unknown, out of range, or the task's own affair.
    """
    for name in OF_THE_DATA:
        if name in changes:
            raise ConfigError(
                "is the task's", field=f"{field}.{name}", value=changes[name], allowed=f"task.training.{name}"
            )
    own = getattr(task, "training", None)
    base = own if isinstance(own, TrainingSettings) else TrainingSettings()
    return type(base).of({**base.to_dict(), **changes})
