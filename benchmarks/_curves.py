"""Learning curves for ``learning_curves``: random networks with random recipes, trained here to the end.

A configuration is a random ``mobile_cnn`` network (one searched block) with a random learning rate, weight decay,
label smoothing and optimiser, trained on 500 digits of ``task=mnist_subset`` and scored on 800 others after each epoch.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from benchmarks._common import ROOT
from benchmarks._trainings import SpaceNetwork, Training, TrainingStore, run_all, task_of
from gnomon.schema import Record, read_json, write_json
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.training_settings import TrainingSettings

if TYPE_CHECKING:
    from torch import nn

    from gnomon.records import Evaluation
    from gnomon.tasks import Task

Configuration: TypeAlias = Mapping[str, str | float]
"""Of a training: the network's choices (texts), its MACs and parameters, and its recipe."""

CURVES = ROOT / "benchmarks" / "learning_curves.json"
SCHEMA = "gnomon.benchmark.learning_curves/1"
TRAININGS = 300
EPOCHS = 12
TASK = (
    "task=mnist_subset",
    "task.fractions=[0.1,0.16,0.74]",
    "task.training.batch_size=32",
    "task.training.schedule=cosine",
    "task.training.warmup=0.1",
)
BLOCKS = ({"filters": 16, "layers": 2, "stride": 2},)
STEM_FILTERS = 8
SEED = 0
"""Of the configurations."""


@dataclass(frozen=True)
class CurveResult(Record):
    """What is kept of a training.

    Args:
        curve: Validation accuracy after each epoch.
        seconds: On one thread.
    """

    SCHEMA: ClassVar[str] = ""

    curve: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class CurveTraining(Training):
    """A training with a recipe of its own, of which the curve is kept.

    Args:
        recipe: What differs from the task's recipe, in JSON (a text, so that trainings can be compared and hashed).
    """

    recipe: str = "{}"

    RESULT: ClassVar[type[Record]] = CurveResult

    def make_task(self) -> Task:
        """The task with this recipe."""
        base = cast("ImageClassification", task_of(self.task))
        base.identity()  # loads the data once, for all copies
        task = copy.copy(base)
        task.training = TrainingSettings.of({**base.training.to_dict(), **json.loads(self.recipe)})
        return task

    def identity(self) -> dict[str, Any]:
        """See :meth:`Training.identity`."""
        return {**super().identity(), "task": self.make_task().identity()}

    def kept(self, model: nn.Module, evaluation: Evaluation) -> CurveResult:
        """See :meth:`Training.kept`."""
        return CurveResult(evaluation.curve, evaluation.cost_s)


def make_space() -> MobileCNN:
    """Of the networks."""
    task = task_of(TASK)
    return MobileCNN(input_shape=task.input_shape, classes=len(task.labels), blocks=BLOCKS, stem_filters=STEM_FILTERS)


def random_trainings(n: int) -> list[CurveTraining]:
    """The first ``n`` configurations; more of them begin with the same."""
    space, rng = make_space(), np.random.default_rng(SEED)
    return [_random_training(space, seed, rng) for seed in range(n)]


def _random_training(space: MobileCNN, seed: int, rng: np.random.Generator) -> CurveTraining:
    row = space.sample(1, rng)[0]
    recipe = {
        "optimizer": ("adamw", "sgd")[int(rng.integers(2))],
        "lr": _log_uniform(1e-3, 0.3, rng),
        "weight_decay": _log_uniform(1e-4, 0.3, rng),
        "label_smoothing": round(float(rng.uniform(0.0, 0.2)), 3),
    }
    network = SpaceNetwork.of(space, row)
    return CurveTraining(network, TASK, EPOCHS, seed, json.dumps(recipe, sort_keys=True))


def _log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """With four significant digits."""
    return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.4g}")


def configurations(n: int) -> list[Configuration]:
    """What is known of the first ``n`` trainings before they begin."""
    space = make_space()
    trainings = random_trainings(n)
    rows = np.stack([space.algebra.from_key(training.network.key) for training in trainings])
    costs = space.costs(rows)
    return [
        {
            **{name: str(choice) for name, choice in space.config(row).items()},
            "macs": float(macs),
            "parameters": float(parameters),
            **json.loads(training.recipe),
        }
        for row, macs, parameters, training in zip(rows, costs.macs, costs.parameters, trainings, strict=True)
    ]


def trained_curves(store: TrainingStore, processes: int) -> npt.NDArray[np.float64]:
    """Accuracies ``(TRAININGS, EPOCHS)``: from the store, or trained now."""
    results = run_all(random_trainings(TRAININGS), store, processes=processes, title="learning curves")
    return np.array([result.curve for result in results.values()], dtype=np.float64)


def write_curves(curves: npt.NDArray[np.float64], path: Path = CURVES) -> None:
    """Writes the curves beside the benchmark."""
    about = {"task": list(TASK), "seed": SEED, "epochs": EPOCHS, "metric": "validation accuracy"}
    write_json(
        path, SCHEMA, {**about, "curves": [json.dumps([round(v, 6) for v in curve]) for curve in curves.tolist()]}
    )


def read_curves(path: Path = CURVES) -> npt.NDArray[np.float64]:
    """Accuracies ``(N, EPOCHS)`` in the order of :func:`random_trainings`.

    Raises:
        SchemaError: If there are none.
    """
    return np.array([json.loads(curve) for curve in read_json(path, SCHEMA)["curves"]], dtype=np.float64)
