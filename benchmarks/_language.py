"""Trainings of language models, and what their benchmarks are about: bytes of the standard library, small hybrids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from benchmarks._trainings import SpaceNetwork, Training, task_of
from gnomon.schema import Record
from gnomon.search_spaces import Deployable, SearchSpace, Workload, space_from_spec

if TYPE_CHECKING:
    from torch import nn

TASK = (
    *("task=python_stdlib", "task.length=512", "task.tokens_per_epoch=65536", "task.training.batch_size=4"),
    "task.ranges=[[256,511]]",
)
QUICK_TASK = (
    *("task=python_stdlib", "task.data.max_bytes=1500000", "task.length=32", "task.tokens_per_epoch=512"),
    *("task.training.batch_size=4", "task.ranges=[]", "task.scored=4", "task.scored_test=4"),
)


@dataclass(frozen=True)
class LanguageResult(Record):
    """What a training of a language model gave: figures of both splits by name, seconds on one thread."""

    SCHEMA: ClassVar[str] = ""

    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class LanguageTraining(Training):
    """One training of a language model from scratch."""

    RESULT: ClassVar[type[Record]] = LanguageResult

    def result(self, model: nn.Module, seconds: float) -> LanguageResult:
        """Scores of both splits."""
        task = task_of(self.task)
        return LanguageResult(task.score(model, "validation"), task.score(model, "test"), seconds)


def make_space(task: Sequence[str], words: Sequence[str]) -> SearchSpace:
    """The space that words of ``gnomon search`` choose, with the task's vocabulary and lengths."""
    from gnomon.conf.compose import compose
    from gnomon.search.setup import make_space

    return make_space(compose("search", [*task, *words]).space, task_of(tuple(task)), [])


def deployable_of(network: SpaceNetwork, workload: Workload | None = None) -> Deployable:
    """What a device runs of a network, untrained: its latency does not depend on weights."""
    spec = network.spec()
    space = space_from_spec(spec["space"])
    return space.deployable(space.config(space.algebra.from_key(spec["key"])), workload)
