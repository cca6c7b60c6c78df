"""Image classification on data that fit in memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, TaskError
from ..records import Evaluation
from .base import Progress, Task
from .image_data import ImageSource
from .prepared import PreparedImages, prepare
from .scoring import score_images
from .splits import check_fractions
from .training_settings import TrainingSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from .image_training_data import ImageTrainingData

SCORED_SPLITS = ("validation", "test")


class ImageClassification(Task):
    """Tells classes of images apart; quality is accuracy (0..1).

    Duplicates are removed before a stratified split; mean and deviation for the normalisation are
    of the train split only; training sees train, search sees validation, the report gives test.

    Args:
        data: What loads the images, for example ``gnomon.tasks.datasets.MnistSubset()``.
        training: The recipe: :class:`TrainingSettings` or a mapping of some of its fields.
        fractions: Of train, validation and test; a sum below 1 uses a part of the data only.
        split_seed: Of the split; apart from the seeds of trainings.

    Data are loaded at first use.
    """

    metric = "accuracy"

    def __init__(
        self,
        data: ImageSource,
        training: TrainingSettings | Mapping[str, Any] | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
    ) -> None:
        if not isinstance(data, ImageSource):
            raise ConfigError(
                "not an image source", field="task.data", value=data, allowed="a class of gnomon.tasks.datasets"
            )
        self.name = data.name
        self.source = data
        self.training = TrainingSettings.of(training)
        self.fractions = check_fractions(fractions)
        self.split_seed = split_seed

    @cached_property
    def data(self) -> PreparedImages:
        """Distinct examples, split and ready."""
        return prepare(self.source.load(), self.fractions, self.split_seed)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.data.shape

    @property
    def labels(self) -> tuple[str, ...]:
        return self.data.data.names

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self.data.preprocessing()

    @cached_property
    def _data_identity(self) -> dict[str, Any]:
        return {
            "task": "image_classification",
            "data": self.data.data.source,
            "data_hash": self.data.data.content_hash(),
            "input_shape": list(self.data.shape),
            "classes": len(self.labels),
            "split_seed": self.split_seed,
            "split_sizes": self.data.splits.sizes,
            "duplicates_removed": self.data.duplicates_removed,
            "label_conflicts": self.data.label_conflicts,
        }

    def identity(self) -> dict[str, Any]:
        return {**self._data_identity, "metric": self.metric, "training": self.training.to_dict()}

    def example_keys(self, split: str) -> list[str]:
        return [self.data.keys[i] for i in self.data.splits[split]]

    def examples(self, n: int) -> npt.NDArray[np.float32]:
        return self.data.examples(n)

    def train(
        self,
        model: nn.Module,
        budget: float,
        *,
        seed: int,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Trains in place for ``budget`` epochs (a fraction is a part of the last one).

        The result is the last epoch's, not the best epoch's, which would favour noise. The model
        is left in evaluation mode. ``cost_s`` counts resumed trainings as a whole.

        Raises:
            TaskError: If the model does not fit the task, the loss diverges, or ``checkpoint``
                holds another training.
        """
        from .training import Trainer

        trainer = Trainer(
            model, self.training_data(), self.training, budget=budget, seed=seed, identity=self.identity()
        )
        return trainer.run(checkpoint, progress)

    def training_data(self) -> ImageTrainingData:
        from .image_training_data import ImageTrainingData

        return ImageTrainingData(self.data, self.training)

    def score(self, model: nn.Module | Path, split: str) -> dict[str, float]:
        """``accuracy`` (0..1) and ``loss`` (nats) of a torch module, or of an ONNX file through
        ONNX Runtime on the CPU.

        Raises:
            TaskError: If the split is not scored, or the model does not fit the task.
        """
        if split not in SCORED_SPLITS:
            raise TaskError("this split is not scored", field="split", value=split, allowed=SCORED_SPLITS)
        return score_images(model, self.data, split)

    def cost_hint_s(self, model: nn.Module, budget: float) -> float:
        """Times a few steps and one validation pass of a copy of ``model``."""
        from .training import Trainer

        steps_per_epoch = max(1, self.data.splits.sizes["train"] // self.training.batch_size)
        trial, data = copy.deepcopy(model), self.training_data()
        seconds = []
        for steps in (2, 2, 10):  # The first is a warm-up.
            start = time.perf_counter()
            Trainer(trial, data, self.training, budget=steps / steps_per_epoch, seed=0, identity={}).run()
            seconds.append(time.perf_counter() - start)
        per_step = max(0.0, (seconds[2] - seconds[1]) / 8)
        validation = max(0.0, seconds[1] - 2 * per_step)
        return budget * (steps_per_epoch * per_step + validation)
