"""Quality of networks that are put together from parts that learnt apart from each other."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
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

if TYPE_CHECKING:
    from torch import nn

    from ..search_spaces.elastic.replaceable import ReplaceableModel
    from .blockwise import BlockwiseDistillation
    from .training_data import TrainingData

FOLDER = "blockwise"
"""In the study's folder."""
QUALITIES = ("metric", "loss")


class BlockwiseEvaluator(Evaluator):
    """Teaches every replacement of a trained model's modules what the module does (Puzzle, 2411.19146), once a study;
    then networks are put together from these parts and scored, which takes seconds.

    When the search is finalised, the found networks train on from the same parts.

    Args:
        space: One whose networks are a trained model with replacements, such as ``mixer_replacement``.
        task: Its data, metric and recipe.
        epochs: Of all replacements together.
        training: What differs from the task's recipe in that training: optimiser, rates, decay.
        quality: ``metric`` (the task's) or ``loss`` (its negative).
        finetune_epochs: Each network is trained for so long as a whole before it is scored; 0 takes it as it is.
        finetuning: What differs from the task's recipe in that.
        threads: Torch threads; None leaves torch as it is.
    """

    name: ClassVar[str] = "blockwise"

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        epochs: int = 4,
        training: Mapping[str, Any] | None = None,
        quality: str = "metric",
        finetune_epochs: float = 0,
        finetuning: Mapping[str, Any] | None = None,
        threads: int | None = 1,
    ) -> None:
        _check(space, task, epochs, finetune_epochs, threads)
        if quality not in QUALITIES:
            raise ConfigError("unknown choice", field="quality.quality", value=quality, allowed=QUALITIES)
        check_same_input(space, task)
        self.space, self.task, self.quality = space, task, quality
        self.distilled_epochs, self.finetune_epochs = epochs, float(finetune_epochs)
        self.recipe = changed_recipe(task, training or {}, "quality.training")
        self.finetuning = changed_recipe(task, finetuning or {}, "quality.finetuning")
        self.threads = threads
        self._model: ReplaceableModel | None = None
        self._record: SharedTraining | None = None
        self._data: TrainingData | None = None

    # ---- Once a study -----------------------------------------------------------------------

    def prepare(self, folder: Path, *, seed: int, progress: Progress | None = None) -> None:
        """Teaches the replacements in ``folder/blockwise``, goes on with a training that was killed, or takes a
        finished one; deterministic by seed.

        Raises:
            TaskError: If training fails, or the folder holds replacements that were trained otherwise.
            SchemaError: If a file is damaged or does not fit the space.
        """
        home = folder / FOLDER
        with torch_threads(self.threads):
            model = self._fresh(seed)
            identity = self._training_identity(model, seed)
            found = load_supernet(home, identity)
            if found is not None:
                tensors, self._record = found
                _fill(model, tensors, home)
            else:
                self._record = self._teacher(model, seed, identity).run(home / "checkpoint", progress)
                save_supernet(home, model.state_dict(), self._record)
                shutil.rmtree(home / "checkpoint", ignore_errors=True)
            self._model = model.eval()

    def _teacher(self, model: ReplaceableModel, seed: int, identity: Mapping[str, Any]) -> BlockwiseDistillation:
        from .blockwise import BlockwiseDistillation

        own = {name: value for name, value in identity.items() if name not in ("epochs", "seed")}
        return BlockwiseDistillation(
            model,
            self._training_data(),
            self.recipe,
            epochs=self.distilled_epochs,
            seed=seed,
            identity=own,
            score=lambda: {name: self._metric(model.extract(config)) for name, config in self.space.named.items()},
        )

    def _fresh(self, seed: int) -> ReplaceableModel:
        from ..search_spaces.elastic.replaceable import ReplaceableModel

        with seeded(derived_seed(seed)):
            model = self.space.elastic()
        if not isinstance(model, ReplaceableModel):
            raise ConfigError(
                "no space of a trained model with replacements",
                field="quality",
                value=self.name,
                allowed="space=mixer_replacement, or quality=supernet",
            )
        return model

    def _training_data(self) -> TrainingData:
        if self._data is None:
            self._data = self.task.training_data()
        return self._data

    def _metric(self, network: nn.Module) -> float:
        data = self._training_data()
        return float(data.score(network.eval())[data.metric])

    # ---- Each architecture ------------------------------------------------------------------

    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """Validation quality of the parts put together, after ``finetune_epochs``; without these no seed changes it.

        Raises:
            TaskError: If :meth:`prepare` was not called before, or finetuning fails.
            SpaceError: If the space has no such architecture.
        """
        start = time.perf_counter()
        with torch_threads(self.threads):
            network = self.initial(architecture)
            if self.finetune_epochs:
                return self._finetuned(network, seed, progress)
            metrics = {name: float(value) for name, value in self._training_data().score(network.eval()).items()}
        return Evaluation(
            quality=self._quality(metrics),
            metrics=metrics,
            budget=float(self.distilled_epochs),
            budget_unit="epochs shared by all",
            cost_s=time.perf_counter() - start,
            seed=seed,
        )

    def _finetuned(self, network: nn.Module, seed: int, progress: Progress | None) -> Evaluation:
        from .training import Trainer

        trainer = Trainer(
            network,
            self._training_data(),
            self.finetuning,
            budget=self.finetune_epochs,
            seed=seed,
            identity=self.identity(),
        )
        if self.quality == "metric":
            return trainer.run(progress=progress)
        found = trainer.run()
        return replace(found, quality=self._quality(found.metrics), curve=())

    def _quality(self, metrics: Mapping[str, float]) -> float:
        return -metrics["loss"] if self.quality == "loss" else metrics[self._training_data().metric]

    def initial(self, architecture: Architecture) -> nn.Module:
        """The parts put together; see :meth:`Evaluator.initial`.

        Raises:
            TaskError: If :meth:`prepare` was not called before.
        """
        if self._model is None:
            raise TaskError("nothing has learnt yet", field="quality", value=self.name, hint="Call prepare first.")
        with seeded(0):
            return self._model.start(architecture.config)

    # ---- What it is -------------------------------------------------------------------------

    def shared_training(self) -> SharedTraining | None:
        return self._record

    def identity(self) -> dict[str, Any]:
        return {
            "evaluator": self.name,
            "epochs": self.distilled_epochs,
            "training": self.recipe.to_dict(),
            "quality": self.quality,
            "finetune_epochs": self.finetune_epochs,
            "finetuning": self.finetuning.to_dict(),
            "threads": self.threads,
            "task": self.task.identity(),
        }

    def _training_identity(self, model: ReplaceableModel, seed: int) -> dict[str, Any]:
        """What the replacements are: neither quality nor finetuning changes them; the parent's weights do."""
        identity = {
            **{name: self.identity()[name] for name in ("epochs", "training", "threads", "task")},
            "space": self.space.spec(),
            "seed": seed,
            "begun_from": _digest(model),
        }
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        return plain

    def preparation_hint_s(self) -> float:
        """Times a few steps of a fresh model."""
        from itertools import islice

        data, model = self._training_data(), self._fresh(0)
        teacher = self._teacher(model, 0, {})
        with torch_threads(self.threads):
            seconds = teacher.step_seconds(list(islice(data.batches(0, 0), 3)))
        return self.distilled_epochs * data.batches_per_epoch * seconds

    def cost_hint_s(self) -> float:
        """Times the evaluation of the first named network with untrained replacements."""
        config = next(iter(self.space.named.values()), None)
        if config is None:
            import numpy as np

            config = self.space.config(self.space.sample(1, np.random.default_rng(0))[0])
        model = self._model if self._model is not None else self._fresh(0).eval()
        with torch_threads(self.threads):
            if self.finetune_epochs:
                hint = self.task.cost_hint_s(model.start(config), self.finetune_epochs)
                return float(hint or 0.0)
            start = time.perf_counter()
            self._metric(model.start(config))
            return time.perf_counter() - start


def _check(space: SearchSpace, task: Task, epochs: int, finetune_epochs: float, threads: int | None) -> None:
    if type(space).elastic is SearchSpace.elastic or not space.starts_trained:
        raise ConfigError(
            "this space does not start from a trained model",
            field="quality",
            value="blockwise",
            allowed="space=mixer_replacement, or another quality",
        )
    if type(task).training_data is Task.training_data:
        raise ConfigError(
            "this task trains one model at a time, in its own way",
            field="quality",
            value="blockwise",
            allowed="a task with training_data()",
        )
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ConfigError("out of range", field="quality.epochs", value=epochs, allowed="integers from 1")
    if isinstance(finetune_epochs, bool) or not finetune_epochs >= 0:
        raise ConfigError("out of range", field="quality.finetune_epochs", value=finetune_epochs, allowed="from 0")
    if threads is not None and threads < 1:
        raise ConfigError("out of range", field="quality.threads", value=threads, allowed="from 1, or null")


def _digest(model: ReplaceableModel) -> str:
    """SHA-256 of all weights before anything learnt."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _fill(model: ReplaceableModel, tensors: Mapping[str, Any], home: Path) -> None:
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise TaskError(
            f"these weights do not fit the space: {str(error).splitlines()[0]}", field="quality", value=str(home)
        ) from error
