"""What a training loop knows of a task: batches, logits, a loss and a score.

Shapes: N predictions in a batch (images; target tokens without padding), K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import nn

Batch: TypeAlias = Any
"""One step's examples; only the task that made it looks inside."""


class TrainingData(ABC):
    """A task's examples as steps of training, for a network of its own and for a supernet alike."""

    metric: str
    """Name of the figure in :meth:`score` that is the quality; larger is better."""

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Steps in one epoch."""

    @abstractmethod
    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """An epoch's batches of the train split, shuffled and augmented, all randomness from (seed, epoch)."""

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The model's predictions ``(N, K)``, for this batch; those for padding are left out.

        Raises:
            TaskError: If the model does not fit the task.
        """

    @abstractmethod
    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean loss (a scalar) of :meth:`logits`, with the task's label smoothing."""

    def training_loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """What a model that is trained by itself learns from (a scalar): by default :meth:`loss` of its logits. A model
        that has more to learn than its last layer's predictions, such as an early exit, has more in it."""
        return self.loss(self.logits(model, batch), batch)

    @abstractmethod
    def score(self, model: nn.Module, split: str = "validation") -> Mapping[str, float]:
        """Metrics on a whole split, cheap enough for every epoch; at least ``metric`` and ``loss`` (nats)."""

    def for_steps(self, steps: int) -> TrainingData:
        """These data for a training of so many steps in all, where what is trained on depends on how far it is, such as
        longer sequences at the end; a training loop asks before it begins. By default the same whatever the number."""
        return self

    def after_step(self, model: nn.Module) -> None:  # noqa: B027 - optional
        """Called after every step of the optimiser, for example to put weights back to unit length; by default nothing.

        Raises:
            TaskError: If this cannot be done to the model.
        """

    def halves(self) -> tuple[TrainingData, TrainingData]:
        """These data as two that share no training example, of equal size: for weights and for what is learnt above
        them.

        Raises:
            TaskError: If the task's examples cannot be divided.
        """
        raise TaskError("the task's examples cannot be divided in two", field="strategy.level", allowed="single")

    def part(self, batch: Batch, index: int, count: int) -> Batch:
        """Every ``count``-th example of a batch from ``index`` on: what one of ``count`` processes trains.

        Raises:
            TaskError: If the task's batches cannot be divided.
        """
        raise TaskError("the task's batches cannot be divided over processes", field="processes", value=count)
