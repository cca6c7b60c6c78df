"""Windows of text as steps of training.

Shapes: B windows in a batch, T tokens, V vocabulary, N tokens of a batch that are to be predicted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from ...errors import DataError, TaskError
from ...search_spaces.hybrid_slm.adaptive import adaptive_loss
from ...search_spaces.hybrid_slm.model import LanguageModel
from ..torch_state import derived_seed
from ..training_data import TrainingData
from .prepared import Ids
from .recall import Flags, RecallSequences, Rows
from .scoring import checked_logits
from .weight_normalisation import normalise_weights
from .windows import WindowBatch, WindowPlan, batch_of, drawn_windows

IGNORED = -100
"""Target that counts for nothing in torch's cross-entropy."""

Scorer = Callable[[nn.Module, str], dict[str, float]]


class LanguageTrainingData(TrainingData):
    """Windows from anywhere in the train split, drawn with replacement from (seed, epoch).

    Args:
        stream: All documents of the train split, one after the other.
        plan: How many windows of which length.
        vocabulary: V.
        metric: Name of the figure that is the quality.
        scorer: Scores a module on a split.
        label_smoothing: Of the loss.
        recall: Makes the share of windows that hold pairs and questions; None for text only.
        weight_normalisation: After every step, see :func:`normalise_weights`.
        exit_weight, running_weight: See :func:`~gnomon.search_spaces.hybrid_slm.adaptive.adaptive_loss`.

    Raises:
        DataError: If the train split is shorter than a window.
    """

    def __init__(
        self,
        stream: Ids,
        plan: WindowPlan,
        vocabulary: int,
        *,
        metric: str,
        scorer: Scorer,
        label_smoothing: float = 0.0,
        recall: RecallSequences | None = None,
        weight_normalisation: bool = False,
        exit_weight: float = 0.0,
        running_weight: float = 0.0,
    ) -> None:
        if len(stream) <= plan.longest:
            raise DataError(
                "the train split is shorter than a window",
                field="task.length" if plan.last_length is None else "task.last_length",
                value=plan.longest,
                allowed=f"below {len(stream)}, the tokens of the train split",
            )
        self.stream, self.plan, self.vocabulary, self.metric = stream, plan, vocabulary, metric
        self.scorer, self.label_smoothing, self.recall = scorer, label_smoothing, recall
        self.weight_normalisation = weight_normalisation
        self.exit_weight, self.running_weight = exit_weight, running_weight
        self.steps: int | None = None

    @property
    def batches_per_epoch(self) -> int:
        return self.plan.steps_per_epoch

    def for_steps(self, steps: int) -> LanguageTrainingData:
        """The same, whose last steps have longer windows if the plan says so."""
        known = copy.copy(self)
        known.steps = steps
        return known

    def batches(self, seed: int, epoch: int) -> Iterator[WindowBatch]:
        rng = np.random.default_rng(derived_seed(seed, epoch, 0))
        for index in range(self.batches_per_epoch):
            count, length = self.plan.shape(epoch * self.batches_per_epoch + index, self.steps)
            windows = drawn_windows(self.stream, count, length, rng)
            targeted = np.ones(windows.shape, dtype=np.bool_)
            for row in range(self._recall_windows(index, count)):
                # Type and place of a window within its batch mean nothing: the first ones will do.
                windows[row], targeted[row] = self._recalled(length, rng)
            yield batch_of(windows, targeted)

    def part(self, batch: WindowBatch, index: int, count: int) -> WindowBatch:
        if len(batch.inputs) < count:
            raise TaskError(
                f"a batch of {len(batch.inputs)} windows cannot be divided",
                field="quality.processes",
                value=count,
                allowed=f"to {len(batch.inputs)}, or a larger task.training.batch_size",
            )
        return WindowBatch(batch.inputs[index::count], batch.targets[index::count])

    def logits(self, model: nn.Module, batch: WindowBatch) -> torch.Tensor:
        """Logits ``(N, V)``, window by window."""
        outputs = checked_logits(model, batch.inputs, self.vocabulary)
        return outputs[batch.mask.to(outputs.device)]

    def loss(self, logits: torch.Tensor, batch: WindowBatch) -> torch.Tensor:
        labels = batch.targets[batch.mask].to(logits.device)
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def training_loss(self, model: nn.Module, batch: WindowBatch) -> torch.Tensor:
        """With an early exit's loss and the price of operators that routers run, of language models that have such."""
        if not (isinstance(model, LanguageModel) and (model.spec.exit_after or model.spec.skips)):
            return super().training_loss(model, batch)
        batch = batch.to(next(model.parameters()).device)
        return adaptive_loss(
            model,
            batch.inputs,
            batch.targets.masked_fill(~batch.mask, IGNORED),
            exit_weight=self.exit_weight,
            running_weight=self.running_weight,
            label_smoothing=self.label_smoothing,
        )

    def after_step(self, model: nn.Module) -> None:
        if self.weight_normalisation:
            normalise_weights(model)

    def score(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        return self.scorer(model, split)

    def _recall_windows(self, index: int, count: int) -> int:
        """How many of a step's windows hold pairs: over an epoch, their share."""
        if self.recall is None:
            return 0
        share = self.recall.recall.share
        return math.floor((index + 1) * count * share) - math.floor(index * count * share)

    def _recalled(self, length: int, rng: np.random.Generator) -> tuple[Rows, Flags]:
        if self.recall is None:
            raise TaskError("no recall", field="task.recall", value=None)
        return self.recall.trained(self.stream, length + 1, rng)
