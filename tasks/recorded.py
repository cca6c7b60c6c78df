"""Quality from published tables: no training, and no weights."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError, DataError, TaskError
from ..records import ArchitectureTable, Evaluation
from ..search_spaces import Architecture, SearchSpace
from .base import Evaluator, Progress, Task

if TYPE_CHECKING:
    from torch import nn


class RecordedTask(Task):
    """The task that a published table was made with: it has a name and a shape, but no data.

    Args:
        dataset: What the table's networks were trained on, for example ``CIFAR-100``.
        input_shape: Shape of one example ``(C, H, W)``.
        labels: Class names, or their number.
        metric: What the table records, larger is better.
    """

    def __init__(
        self, dataset: str, input_shape: Sequence[int], labels: Sequence[str] | int, metric: str = "accuracy"
    ) -> None:
        names = tuple(str(i) for i in range(labels)) if isinstance(labels, int) else tuple(map(str, labels))
        if len(names) < 2:
            raise ConfigError("nothing to tell apart", field="task.labels", value=labels, allowed="at least 2 classes")
        self.name = f"recorded_{dataset.lower().replace('-', '')}"
        self.dataset, self.metric = dataset, metric
        self._input_shape, self._labels = tuple(int(side) for side in input_shape), names

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._input_shape

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Empty: tables do not say how inputs were normalised."""
        return {}

    def identity(self) -> dict[str, Any]:
        return {
            "task": "recorded",
            "data": self.dataset,
            "input_shape": list(self._input_shape),
            "classes": len(self._labels),
            "metric": self.metric,
        }

    def train(
        self,
        model: nn.Module,
        budget: float,
        *,
        seed: int,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Raises TaskError: recorded studies have no data to train on."""
        raise self._no_weights("trained")

    def score(self, model: nn.Module | Path, split: str) -> dict[str, float]:
        """Raises TaskError: recorded studies have no data to score on."""
        raise self._no_weights("scored")

    def _no_weights(self, what: str) -> TaskError:
        return TaskError(
            f"nothing can be {what}: a recorded study ({self.dataset}) has neither data nor weights",
            hint="Use a task with data, for example task=mnist_subset, for models that can be shipped.",
        )


class RecordedEvaluator(Evaluator):
    """Looks quality up in a published table.

    Published tables mostly give *test* accuracy: a search on them shows how well a strategy
    searches, not how well the found network would do on data that nobody has looked at.

    Args:
        space: Its genotypes are looked up; decisions must be the table's.
        task: What the table was recorded for.
        table: The published values.
        column: Which of them is the quality, larger is better.
        cost_s: Seconds that an evaluation sleeps, to try out workers on a search that costs time.
    """

    name: ClassVar[str] = "recorded"
    has_weights: ClassVar[bool] = False

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        table: ArchitectureTable,
        column: str,
        cost_s: float = 0.0,
    ) -> None:
        if column not in table.columns:
            raise DataError(
                "not recorded in this table", field="quality.column", value=column, allowed=sorted(table.columns)
            )
        if table.space.decisions != space.decisions:
            raise ConfigError(
                "the table records another search space",
                field="space",
                value=space.name,
                allowed=f"{table.space.name}, as {table.source} records it",
            )
        if not cost_s >= 0:
            raise ConfigError("out of range", field="quality.cost_s", value=cost_s, allowed="seconds from 0")
        self.space, self.task, self.table = space, task, table
        self.column, self.cost_s = column, cost_s

    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """The recorded value; the seed changes nothing.

        Raises:
            TaskError: If this architecture is not in the table.
        """
        start = time.perf_counter()
        row = self.space.genotype(architecture.config)
        quality = float(self.table.lookup(row[None], self.column)[0])
        if math.isnan(quality):
            raise TaskError(
                f"{self.table.source} has no {self.column} for this architecture",
                field="architecture",
                value=architecture.key,
            )
        if self.cost_s > 0:
            time.sleep(self.cost_s)
        if progress is not None:
            progress(1.0, quality)
        return Evaluation(
            quality=quality,
            metrics={self.task.metric: quality},
            budget=1.0,
            budget_unit="look-ups",
            cost_s=time.perf_counter() - start,
            seed=seed,
            curve=(quality,),
        )

    def identity(self) -> dict[str, Any]:
        return {
            "evaluator": self.name,
            "column": self.column,
            "rows": len(self.table.genotypes),
            "table_hash": self._table_hash,
            "task": self.task.identity(),
        }

    @cached_property
    def _table_hash(self) -> str:
        """Of what is recorded, not of the file's path, which differs between machines."""
        digest = sha256(self.table.genotypes.tobytes())
        digest.update(self.table.columns[self.column].tobytes())
        return digest.hexdigest()

    def cost_hint_s(self) -> float:
        return self.cost_s
