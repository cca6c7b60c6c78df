"""Quality from shared weights: one supernet is trained, and each architecture is a part of it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError, TaskError
from ..records import Evaluation
from ..records.shared_training import SharedTraining
from ..search_spaces import Architecture, SearchSpace
from .base import Evaluator, Progress, Task
from .recipe import changed_recipe
from .supernet_files import load_supernet, save_supernet
from .torch_state import derived_seed, seeded, torch_threads
from .train_evaluator import check_same_input
from .weight_sharing.rule import TrainingRule

if TYPE_CHECKING:
    from torch import nn

    from ..search_spaces.elastic import ElasticModel
    from .supernet import SupernetTrainer
    from .training_data import Batch, TrainingData

FOLDER = "supernet"
"""In the study's folder."""
QUALITIES = ("metric", "loss")
TUNING_LR = 0.5
"""Of the recipe's rate: tuned weights are near a good place already."""


class SupernetEvaluator(Evaluator):
    """Trains a supernet once (Once-for-All, 1908.09791; BigNAS, 2003.11142; HAT, 2005.14187), then scores each
    architecture with its part of the weights, which takes seconds.

    The scores rank architectures; they are not what the found ones reach: those are trained by themselves when the
    search is finalised.

    Args:
        space: One whose networks share weights.
        task: Its data, metric and recipe.
        rule: How the supernet is trained, for example ``gnomon.tasks.weight_sharing.sandwich.Sandwich()``.
        epochs: Of the supernet; 0 takes ``weights``, or those with which the space starts, as they are.
        training: What differs from the task's recipe: optimiser, rates, decay; not batches and augmentation.
        quality: ``metric`` (the task's) or ``loss`` (its negative, as HAT ranks: it tells networks apart whose
            metric is equal).
        weights: A ``supernet.safetensors`` of another study to start from; None starts afresh.
        calibration_batches: From which batch norm is estimated anew for each architecture that is not tuned.
        tune_epochs: For which each architecture's part of the weights is trained by itself before it is scored;
            a fraction is a part of an epoch. 0 scores the shared weights as they are.
        tuning: What differs from the recipe in that; by default, half of its rate.
        processes: Train the supernet together.
        threads: Torch threads of each process; None leaves torch as it is.
    """

    name: ClassVar[str] = "supernet"

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        rule: TrainingRule,
        epochs: int = 60,
        training: Mapping[str, Any] | None = None,
        quality: str = "metric",
        weights: str | None = None,
        calibration_batches: int = 8,
        tune_epochs: float = 0,
        tuning: Mapping[str, Any] | None = None,
        processes: int = 1,
        threads: int | None = 1,
    ) -> None:
        _check_elastic(space, task)
        _check_numbers(space, epochs, calibration_batches, processes, threads, weights)
        is_number = isinstance(tune_epochs, (int, float)) and not isinstance(tune_epochs, bool)
        if not (is_number and math.isfinite(tune_epochs) and tune_epochs >= 0):
            raise ConfigError(
                "out of range", field="quality.tune_epochs", value=tune_epochs, allowed="a number of epochs, 0 or more"
            )
        if not isinstance(rule, TrainingRule):
            raise ConfigError(
                "not a training rule",
                field="quality.rule",
                value=rule,
                allowed="a class of gnomon.tasks.weight_sharing",
            )
        if quality not in QUALITIES:
            raise ConfigError("unknown choice", field="quality.quality", value=quality, allowed=QUALITIES)
        self.space, self.task, self.rule = space, task, rule
        self.supernet_epochs, self.quality = epochs, quality
        self.recipe = changed_recipe(task, training or {}, "quality.training")
        self.tune_epochs = float(tune_epochs)
        changes = {"lr": TUNING_LR * self.recipe.lr, **(tuning or {})}
        self.tuning = changed_recipe(task, {**(training or {}), **changes}, "quality.tuning")
        self.weights = None if weights is None else Path(weights).absolute()
        self.calibration_batches, self.processes, self.threads = calibration_batches, processes, threads
        self._model: ElasticModel | None = None
        self._record: SharedTraining | None = None
        self._data: TrainingData | None = None
        self._calibration: Sequence[Batch] = ()

    # ---- Once a study -----------------------------------------------------------------------

    def prepare(self, folder: Path, *, seed: int, progress: Progress | None = None) -> None:
        """Trains the supernet in ``folder/supernet``, goes on with a training that was killed, or takes a finished
        one; deterministic by seed.

        Raises:
            SpaceError: If the space shares no weights.
            TaskError: If training fails, or the folder holds a supernet that was trained otherwise.
            SchemaError: If a file is damaged or does not fit the space.
        """
        home = folder / FOLDER
        with torch_threads(self.threads):
            identity = self._training_identity(seed)
            found = load_supernet(home, identity)
            model = self._fresh(seed)
            if found is not None:
                tensors, self._record = found
                _fill(model, tensors, str(home))
            else:
                self._record = self._train(model, home, seed, identity, progress)
            self._model = model.eval()
            self._calibrate_on(seed)

    def _train(
        self, model: ElasticModel, home: Path, seed: int, identity: Mapping[str, Any], progress: Progress | None
    ) -> SharedTraining:
        if self.weights is not None:
            from .checkpoint import read_tensors

            tensors = read_tensors(self.weights, hint="quality.weights names a supernet.safetensors of another study.")
            _fill(model, tensors, str(self.weights))
        if self.supernet_epochs:
            record = self._trainer(model, seed, self.supernet_epochs, identity).run(home / "checkpoint", progress)
        else:
            metric = self._training_data().metric
            record = SharedTraining(self.rule.name, 0, 0, 0, 0.0, metric, identity=dict(identity))
        save_supernet(home, model.state_dict(), record)
        shutil.rmtree(home / "checkpoint", ignore_errors=True)
        return record

    def _trainer(self, model: ElasticModel, seed: int, epochs: int, identity: Mapping[str, Any]) -> SupernetTrainer:
        from .supernet import SupernetTrainer

        return SupernetTrainer(
            model,
            self.space,
            self._training_data(),
            self.recipe,
            self.rule,
            epochs=epochs,
            seed=seed,
            identity=identity,
            processes=self.processes,
            calibration_batches=self.calibration_batches,
        )

    def _fresh(self, seed: int) -> ElasticModel:
        with seeded(derived_seed(seed)):
            return self.space.elastic()

    def _training_data(self) -> TrainingData:
        if self._data is None:
            self._data = self.task.training_data()
        return self._data

    def _calibrate_on(self, seed: int) -> None:
        from .weight_sharing.batch_norm import calibration_batches, has_batch_norm

        if self._model is not None and has_batch_norm(self._model):
            self._calibration = calibration_batches(self._training_data(), self.calibration_batches, seed)

    # ---- Each architecture ------------------------------------------------------------------

    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """Validation quality with the shared weights, batch norm estimated anew; no seed changes it. With
        ``tune_epochs``, after so much training of the architecture's own copy, in the order of ``seed``.

        Raises:
            TaskError: If :meth:`prepare` was not called before.
            SpaceError: If the space has no such architecture.
        """
        if self._model is None:
            raise TaskError("there is no supernet yet", field="quality", value=self.name, hint="Call prepare first.")
        start = time.perf_counter()
        with torch_threads(self.threads):
            if self.tune_epochs:
                metrics = self._tuned(self._model, architecture.config, seed)
            else:
                metrics = self._scored(self._model, architecture.config)
        quality = -metrics["loss"] if self.quality == "loss" else metrics[self._training_data().metric]
        return Evaluation(
            quality=quality,
            metrics=metrics,
            budget=self.tune_epochs or float(max(1, self.supernet_epochs)),
            budget_unit="epochs after those shared by all" if self.tune_epochs else "epochs shared by all",
            cost_s=time.perf_counter() - start,
            seed=seed,
        )

    def _scored(self, model: ElasticModel, config: Mapping[str, Any]) -> dict[str, float]:
        """Metrics of a network's own copy of its weights, so that the supernet stays as it is."""
        from .weight_sharing.batch_norm import recalibrated

        data = self._training_data()
        network = _extracted(model, config)
        with recalibrated(network, data, self._calibration):
            return {name: float(value) for name, value in data.score(network).items()}

    def _tuned(self, model: ElasticModel, config: Mapping[str, Any], seed: int) -> dict[str, float]:
        """Metrics of a network's own copy of its weights after a training of its own, in which batch norm's statistics
        become its own, too."""
        from .training import Trainer

        data, network = self._training_data(), _extracted(model, config)
        trainer = Trainer(network, data, self.tuning, budget=self.tune_epochs, seed=seed, identity={})
        return dict(trainer.run().metrics)

    # ---- What it is -------------------------------------------------------------------------

    def shared_training(self) -> SharedTraining | None:
        return self._record

    def identity(self) -> dict[str, Any]:
        return {
            "evaluator": self.name,
            "rule": self.rule.to_dict(),
            "epochs": self.supernet_epochs,
            "training": self.recipe.to_dict(),
            "quality": self.quality,
            "weights": None if self.weights is None else _digest(self.weights),
            "calibration_batches": self.calibration_batches,
            "tune_epochs": self.tune_epochs,
            "tuning": self.tuning.to_dict() if self.tune_epochs else None,
            "processes": self.processes,
            "threads": self.threads,
            "task": self.task.identity(),
        }

    def _training_identity(self, seed: int) -> dict[str, Any]:
        """What the supernet is: which quality is taken from it does not matter."""
        other = ("evaluator", "quality", "tune_epochs", "tuning")
        own = {name: value for name, value in self.identity().items() if name not in other}
        return {**own, "space": self.space.spec(), "seed": seed}

    def preparation_hint_s(self) -> float:
        """Times a few steps of a fresh supernet."""
        from itertools import islice

        from .weight_sharing.step_timing import step_seconds

        if not self.supernet_epochs:
            return 0.0
        data = self._training_data()
        with torch_threads(self.threads):
            batches = list(islice(data.batches(0, 0), 4))
            seconds = step_seconds(self._fresh(0), self.space, data, self.recipe, self.rule, batches)
        return self.supernet_epochs * data.batches_per_epoch * seconds / self.processes

    def cost_hint_s(self) -> float | None:
        """Times the evaluation of one random architecture with untrained weights, or a few steps of its tuning."""
        import numpy as np

        if self._model is not None:
            model = self._model
        else:
            model = self._fresh(0).eval()
        config = self.space.config(self.space.sample(1, np.random.default_rng(0))[0])
        if self.tune_epochs:
            with torch_threads(self.threads):
                return self.task.cost_hint_s(_extracted(model, config), self.tune_epochs)
        start = time.perf_counter()
        with torch_threads(self.threads):
            self._scored(model, config)
        return time.perf_counter() - start


def _extracted(model: ElasticModel, config: Mapping[str, Any]) -> nn.Module:
    with seeded(0):
        return model.extract(config)


def _check_elastic(space: SearchSpace, task: Task) -> None:
    if type(space).elastic is SearchSpace.elastic:
        raise ConfigError(
            "this space shares no weights between its networks",
            field="quality",
            value="supernet",
            allowed="quality=train, or a space with elastic modules",
        )
    if type(task).training_data is Task.training_data:
        raise ConfigError(
            "this task trains one model at a time, in its own way",
            field="quality",
            value="supernet",
            allowed="quality=train, or a task with training_data()",
        )
    check_same_input(space, task)


def _check_numbers(
    space: SearchSpace, epochs: int, calibration_batches: int, processes: int, threads: int | None, weights: str | None
) -> None:
    least = {
        "epochs": 0 if weights is not None or space.starts_trained else 1,
        "calibration_batches": 1,
        "processes": 1,
        "threads": 1,
    }
    values = {"epochs": epochs, "calibration_batches": calibration_batches, "processes": processes, "threads": threads}
    for field, value in values.items():
        if value is None and field == "threads":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least[field]:
            raise ConfigError(
                "out of range", field=f"quality.{field}", value=value, allowed=f"integers from {least[field]}"
            )


def _fill(model: ElasticModel, tensors: Mapping[str, Any], source: str) -> None:
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise TaskError(
            f"these weights do not fit the space's supernet: {str(error).splitlines()[0]}",
            field="quality.weights",
            value=source,
        ) from error


def _digest(path: Path) -> str:
    """SHA-256 of the weights, which are a part of what the supernet is.

    Raises:
        ConfigError: If there is no such file.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"cannot read it: {error.strerror or error}", field="quality.weights", value=str(path)
        ) from error
