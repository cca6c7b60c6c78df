"""A user's own training as a task: one function, named by one ``_target_``."""

from __future__ import annotations

import functools
import inspect
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, TaskError
from ..records import Evaluation
from .base import Progress, StopTraining, Task
from .image_data import ImageSource
from .prepared import PreparedImages, prepare
from .scoring import Predict, predictor, score_images
from .splits import check_fractions
from .torch_state import derived_seed, seeded

if TYPE_CHECKING:
    from torch import nn

TrainFunction: TypeAlias = Callable[..., Mapping[str, float]]
ScoreFunction: TypeAlias = Callable[[Predict, Any, str], Mapping[str, float]]

OPTIONAL_ARGUMENTS = ("seed", "checkpoint", "progress")


@dataclass(frozen=True)
class TrainingData:
    """What a training function may see: no test example.

    Args:
        train_images, validation_images: Normalised model inputs ``(n, C, H, W)``.
        train_labels, validation_labels: Class indices ``(n,)``.
        names: Class names.
    """

    train_images: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    validation_images: npt.NDArray[np.float32]
    validation_labels: npt.NDArray[np.int64]
    names: tuple[str, ...]


class UserTask(Task):
    """Trains with the user's function ``train(model, data, budget) -> metrics``.

    ``train`` trains ``model`` in place for ``budget`` (epochs, or whatever the function takes it
    for) and returns its validation metrics, among them ``metric``.
    If its signature has them, it also gets ``seed``, ``checkpoint`` (a folder, or None) and
    ``progress``. Random numbers of torch (CPU), numpy and ``random`` are seeded around the call
    and put back afterwards.

    With an image source as ``data``, the function gets :class:`TrainingData` (splits without
    duplicates, never the test split) and Gnomon scores accuracy and loss itself. With anything
    else as ``data``, the function gets that very object, and ``score``, ``input_shape`` and
    ``labels`` are needed: ``score(predict, data, split) -> metrics``, where ``predict`` maps
    inputs ``(B, ...)`` to outputs as numpy arrays, whether torch or an ONNX file is behind it.

    Example::

        def train(model, data, budget):
            fit(model, data.train_images, data.train_labels, epochs=budget)
            return {"accuracy": accuracy(model, data.validation_images, data.validation_labels)}

        task = UserTask(train=train, data=MnistSubset())

    and as a config file ``my_task.yaml`` in a folder given with ``--config-dir``::

        _target_: gnomon.tasks.user.UserTask
        train: {_target_: my_package.train, _partial_: true}
        data: {_target_: gnomon.tasks.datasets.MnistSubset}

    Args:
        train: The function.
        data: An image source, or any object.
        metric: Which of the returned figures is the quality, larger is better.
        score: Scores a model on ``validation`` or ``test``.
        input_shape: Shape of one example; taken from an image source.
        labels: Class or output names; taken from an image source.
        preprocessing: What turns a raw example into the model's input, as JSON; taken from an
            image source.
        identity: JSON that tells this data and training from others, where ``data`` cannot.
        fractions, split_seed: As in ``ImageClassification``.
    """

    name = "user"

    def __init__(
        self,
        train: TrainFunction,
        data: Any,
        metric: str = "accuracy",
        score: ScoreFunction | None = None,
        input_shape: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
    ) -> None:
        if not callable(train):
            raise ConfigError(
                "not a function",
                field="task.train",
                value=train,
                allowed="{_target_: package.function, _partial_: true}, or a function in Python",
            )
        self.metric = metric
        self._train, self._score, self._source = train, score, data
        self._fractions, self._split_seed = check_fractions(fractions), split_seed
        self._identity = dict(identity or {})
        self._preprocessing = dict(preprocessing or {})
        self._input_shape, self._labels = input_shape, labels
        if not isinstance(data, ImageSource):
            needed = {"score": score, "input_shape": input_shape, "labels": labels}
            for argument, value in needed.items():
                if value is None:
                    raise ConfigError(
                        "needed, because task.data is not an image source", field=f"task.{argument}", value=None
                    )

    @functools.cached_property
    def _images(self) -> PreparedImages | None:
        if not isinstance(self._source, ImageSource):
            return None
        return prepare(self._source.load(), self._fractions, self._split_seed)

    @functools.cached_property
    def data(self) -> Any:
        """What the training function gets."""
        images = self._images
        if images is None:
            return self._source
        return TrainingData(
            images.normalised("train"),
            images.labels("train"),
            images.normalised("validation"),
            images.labels("validation"),
            images.data.names,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        if self._images is not None:
            return self._images.shape
        return tuple(self._input_shape or ())

    @property
    def labels(self) -> tuple[str, ...]:
        return self._images.data.names if self._images is not None else tuple(self._labels or ())

    @property
    def preprocessing(self) -> dict[str, Any]:
        return self._images.preprocessing() if self._images is not None else self._preprocessing

    def example_keys(self, split: str) -> list[str] | None:
        images = self._images
        return None if images is None else [images.keys[i] for i in images.splits[split]]

    def examples(self, n: int) -> npt.NDArray[np.float32] | None:
        images = self._images
        return None if images is None else images.examples(n)

    def identity(self) -> dict[str, Any]:
        identity = {"task": "user", "metric": self.metric, "train": _function_name(self._train), **self._identity}
        images = self._images
        if images is not None:
            identity |= {
                "data": images.data.source,
                "data_hash": images.data.content_hash(),
                "split_seed": self._split_seed,
                "split_sizes": images.splits.sizes,
            }
        return identity

    def train(
        self,
        model: nn.Module,
        budget: float,
        *,
        seed: int,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Calls the user's function.

        Raises:
            TaskError: If it fails, or returns no finite figure named ``metric``.
        """
        if not (math.isfinite(budget) and budget > 0):
            raise TaskError("not a budget", field="budget", value=budget, allowed="a positive number")
        report = _Curve(progress)
        offered = {"seed": seed, "checkpoint": checkpoint, "progress": report}
        accepted = {name: offered[name] for name in OPTIONAL_ARGUMENTS if _accepts(self._train, name)}
        start = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(seeded(derived_seed(seed)))
            stack.enter_context(_seeded_python(seed))
            try:
                metrics = self._train(model, self.data, budget, **accepted)
            except StopTraining:
                metrics = {self.metric: report.values[-1]}
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                name = _function_name(self._train)
                raise TaskError(f"{name} failed: {type(error).__name__}: {error}") from error
        figures = self._checked(metrics, _function_name(self._train))
        return Evaluation(
            quality=figures[self.metric],
            metrics=figures,
            budget=report.spent if report.stopped else float(budget),
            cost_s=time.perf_counter() - start,
            seed=seed,
            curve=tuple(report.values) or (figures[self.metric],),
        )

    def score(self, model: nn.Module | Path, split: str) -> dict[str, float]:
        """The user's ``score``, or else ``accuracy`` and ``loss``.

        Raises:
            TaskError: If the split is not scored or the figures lack ``metric``.
        """
        if split not in ("validation", "test"):
            raise TaskError("this split is not scored", field="split", value=split, allowed=("validation", "test"))
        if self._score is not None:
            data = self._images if self._images is not None else self._source
            return self._checked(self._score(predictor(model), data, split), _function_name(self._score))
        if self._images is None:
            raise TaskError("nothing can be scored without task.score")
        return self._checked(score_images(model, self._images, split), "score")

    def _checked(self, metrics: Any, function: str) -> dict[str, float]:
        if not isinstance(metrics, Mapping) or self.metric not in metrics:
            raise TaskError(
                f"{function} must return a mapping with the metric {self.metric!r}", field="returned", value=metrics
            )
        figures = {str(name): float(value) for name, value in metrics.items()}
        if not math.isfinite(figures[self.metric]):
            raise TaskError(
                f"{function} returned a metric that is not finite", field=self.metric, value=figures[self.metric]
            )
        return figures


class _Curve:
    """Keeps what a training function reports and passes it on."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.values: list[float] = []
        self.spent = 0.0
        self.stopped = False

    def __call__(self, spent: float, metric: float) -> None:
        self.values.append(float(metric))
        self.spent = float(spent)
        if self._progress is not None:
            try:
                self._progress(spent, metric)
            except StopTraining:
                self.stopped = True
                raise


@contextmanager
def _seeded_python(seed: int) -> Iterator[None]:
    """Numpy's old global generator and ``random``, which user code may draw from."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(derived_seed(seed) % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _accepts(function: Callable[..., Any], argument: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return takes_any or argument in parameters


def _function_name(function: Callable[..., Any]) -> str:
    if isinstance(function, functools.partial):
        keywords = ", ".join(f"{k}={v!r}" for k, v in sorted(function.keywords.items()))
        return f"{_function_name(function.func)}({keywords})"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"
