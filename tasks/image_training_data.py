"""Images in memory as steps of training.

Shapes: B images in a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import nn

from ..errors import TaskError
from .augmentation import Augmentation
from .prepared import PreparedImages
from .scoring import score_images
from .torch_state import derived_seed
from .training_data import TrainingData
from .training_settings import TrainingSettings

ImageBatch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Model inputs ``(B, C, H, W)`` and labels ``(B,)``."""


class ImageTrainingData(TrainingData):
    """The train split in shuffled, augmented batches of one size; what is left over of an epoch is left out.

    Args:
        data: Only its train split is learned from, only what is asked for is scored.
        settings: Batch size, augmentation and label smoothing.
        half: 0 or 1 for every other example, from that one on; None for all.
    """

    metric = "accuracy"

    def __init__(self, data: PreparedImages, settings: TrainingSettings, half: int | None = None) -> None:
        self.data, self.settings = data, settings
        self._labels, raw = torch.from_numpy(data.labels("train")), torch.from_numpy(data.raw("train"))
        if half is not None:
            self._labels, raw = self._labels[half::2], raw[half::2]
        self._augmentation = Augmentation(raw, settings.shift, settings.flip)
        self._batch_size = min(settings.batch_size, len(self._labels))

    @property
    def batches_per_epoch(self) -> int:
        return len(self._labels) // self._batch_size

    def batches(self, seed: int, epoch: int) -> Iterator[ImageBatch]:
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch, 0))
        order = torch.randperm(len(self._labels), generator=generator)
        for indices in torch.split(order, self._batch_size)[: self.batches_per_epoch]:
            raw = self._augmentation.batch(indices, generator)
            yield self.data.normalise_batch(raw), self._labels[indices]

    def halves(self) -> tuple[TrainingData, TrainingData]:
        return type(self)(self.data, self.settings, 0), type(self)(self.data, self.settings, 1)

    def part(self, batch: ImageBatch, index: int, count: int) -> ImageBatch:
        inputs, labels = batch
        return inputs[index::count], labels[index::count]

    def logits(self, model: nn.Module, batch: ImageBatch) -> torch.Tensor:
        inputs, classes = batch[0], len(self.data.data.names)
        try:
            outputs: torch.Tensor = model(inputs)
        except (RuntimeError, ValueError, TypeError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TaskError(f"the model cannot run on inputs {tuple(inputs.shape)}: {line}") from error
        if tuple(outputs.shape) != (len(inputs), classes):
            raise TaskError(
                "the model does not give one logit per class",
                field="output shape",
                value=tuple(outputs.shape),
                allowed=f"({len(inputs)}, {classes}) for this batch",
            )
        return outputs

    def loss(self, logits: torch.Tensor, batch: ImageBatch) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, batch[1], label_smoothing=self.settings.label_smoothing)

    def score(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        return score_images(model, self.data, split)
