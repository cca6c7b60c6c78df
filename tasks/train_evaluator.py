"""Quality by training: each architecture from scratch, for a few epochs or to the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import ConfigError, TaskError
from ..records import Evaluation
from ..search_spaces import Architecture, SearchSpace
from .base import Evaluator, Progress, StopTraining, Task
from .torch_state import derived_seed, seeded, torch_threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class TrainEvaluator(Evaluator):
    """Builds and trains each architecture from scratch.

    Few epochs rank architectures (MnasNet, 1807.11626, trains 5 epochs of ImageNet a sample);
    the best are trained to the end when a search is finalised.

    Args:
        space: Builds the models; its input shape must be the task's.
        task: Trains and scores them.
        epochs: Budget of one evaluation, in the task's unit.
        threads: Torch threads of a training; None leaves torch as it is.
        time_limit_s: Stops a training after the epoch in which this time ends; None for no limit.
            A limit makes results depend on the machine's speed.
    """

    name: ClassVar[str] = "train"

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        epochs: float = 3,
        threads: int | None = 1,
        time_limit_s: float | None = None,
    ) -> None:
        if epochs <= 0:
            raise ConfigError("not a budget", field="quality.epochs", value=epochs, allowed="a positive number")
        if threads is not None and threads < 1:
            raise ConfigError("out of range", field="quality.threads", value=threads, allowed="from 1, or null")
        if time_limit_s is not None and time_limit_s <= 0:
            raise ConfigError(
                "out of range", field="quality.time_limit_s", value=time_limit_s, allowed="positive, or null"
            )
        check_same_input(space, task)
        self.space, self.task = space, task
        self.epochs, self.threads, self.time_limit_s = epochs, threads, time_limit_s

    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """Validation quality after the budget; the seed covers weights and training.

        Raises:
            TaskError: If the architecture cannot be built or trained.
        """
        watch = TimeLimit(progress, self.time_limit_s)
        with torch_threads(self.threads):
            return self.task.train(self._build(architecture, seed), self.epochs, seed=seed, progress=watch)

    def identity(self) -> dict[str, Any]:
        return {
            "evaluator": self.name,
            "epochs": self.epochs,
            "threads": self.threads,
            "time_limit_s": self.time_limit_s,
            "task": self.task.identity(),
        }

    def cost_hint_s(self) -> float | None:
        """From a few steps of the space's reference network, or of a random one if none is named."""
        names = list(self.space.named)
        if names:
            row = self.space.named_genotype(names[0])
        else:
            row = self.space.sample(1, np.random.default_rng(0))[0]
        with torch_threads(self.threads):
            return self.task.cost_hint_s(self._build(self.space.architecture(row), 0), self.epochs)

    def _build(self, architecture: Architecture, seed: int) -> nn.Module:
        with seeded(derived_seed(seed)):
            try:
                return self.space.initial(architecture.config)
            except RuntimeError as error:
                raise TaskError(f"architecture {architecture.key} cannot be built: {error}") from error


def check_same_input(space: SearchSpace, task: Task) -> None:
    """Refuses a space that builds models for another input than the task's examples. Models of sequences take
    any length; theirs is the one at which latency counts.

    Raises:
        ConfigError: With what both take.
    """
    built, given = tuple(space.workload.input_shape), tuple(task.input_shape)
    takes, has = _vocabularies(space.arguments()), _vocabularies(task.space_arguments())
    if len(built) != len(given) or (takes and has and not takes & has):
        raise ConfigError(
            f"the search space {space.name} builds models for {_inputs(takes, built)}, "
            f"and the task's examples are {_inputs(has, given)}",
            field="task",
            value=task.name,
            hint="Choose another task, or a space for this one: `gnomon spaces` lists spaces.",
        )
    any_length = space.workload.source_length is not None
    if built != given and not any_length:
        raise ConfigError(
            "the search space builds models for another input than the task's examples",
            field="space.input_shape",
            value=built,
            allowed=f"{given[0]} tokens" if len(given) == 1 else str(given),
        )


def _vocabularies(arguments: Mapping[str, Any]) -> set[str]:
    """Names of arguments that say how many tokens there are: of a text, or of a source and a target."""
    return {name for name in arguments if name.endswith("vocabulary")}


def _inputs(vocabularies: set[str], shape: tuple[int, ...]) -> str:
    if len(vocabularies) > 1:
        return "pairs of sequences"
    return "sequences" if len(shape) == 1 else f"images or arrays {shape}"


class TimeLimit:
    """Passes progress on and ends the training when its time is over."""

    def __init__(self, progress: Progress | None, limit_s: float | None) -> None:
        self._progress, self._limit_s, self._start = progress, limit_s, time.perf_counter()

    def __call__(self, spent: float, metric: float) -> None:
        if self._progress is not None:
            self._progress(spent, metric)
        if self._limit_s is not None and time.perf_counter() - self._start >= self._limit_s:
            raise StopTraining
