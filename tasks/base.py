"""The contracts of a task (data and metric) and of an evaluator (quality of an architecture)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import TaskError
from ..records import Evaluation
from ..search_spaces import Architecture, Genotypes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from ..records.shared_training import SharedTraining
    from .training_data import TrainingData

Progress = Callable[[float, float], None]
"""Called with (budget spent, metric so far). It may raise :class:`StopTraining`."""


class StopTraining(Exception):
    """Raised by a progress callback to end a training early; what was reached so far counts."""


class Task(ABC):
    """Data with train, validation and test splits that share no example, a metric, and how to
    train. Runs ``gnomon.testing.TaskSuite``.

    A search sees validation only; the report gives test.
    """

    name: str
    """What it is called in study names and reports, for example the data set's name."""
    metric: str
    """Name of the figure that ``score`` returns, larger is better, for example ``accuracy``."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example without the batch dimension."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs; empty where outputs are no classes."""

    @property
    @abstractmethod
    def preprocessing(self) -> Mapping[str, Any]:
        """What turns a raw example into the model's input, as JSON, for the exported file."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What makes results comparable, as JSON: name, split sizes and seed, data hash."""

    @abstractmethod
    def train(
        self,
        model: nn.Module,
        budget: float,
        *,
        seed: int,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Trains ``model`` in place for ``budget`` epochs and scores it on validation.

        Deterministic by seed. With ``checkpoint``, state is saved after each epoch (safetensors
        and JSON) in this folder, and a killed training goes on where it was. If ``progress``
        raises :class:`StopTraining`, the evaluation is of what was reached.
        """

    @abstractmethod
    def score(self, model: nn.Module | Path, split: str) -> dict[str, float]:
        """Metrics of a torch module, or of an exported model, on ``validation`` or ``test``.

        Args:
            model: A module, an ONNX file, or the folder of a model that has several graphs.
            split: One that may be scored.
        """

    def space_arguments(self) -> Mapping[str, Any]:
        """What a search space learns of the task: values for those of its arguments that a config leaves null."""
        return {"input_shape": self.input_shape, "classes": len(self.labels)}

    def training_data(self) -> TrainingData:
        """The train split as steps, for loops of other kinds than :meth:`train`, such as a supernet's.

        Raises:
            TaskError: If the task trains in its own way only.
        """
        raise TaskError("trains one model at a time, in its own way", field="task", value=self.name)

    def examples(self, n: int) -> npt.NDArray[np.float32] | None:
        """Up to ``n`` model inputs ``(n, *input_shape)`` of the train split, always the same, from which the
        ranges of a quantised model are set; None if the task has none to give."""
        return None

    def assets(self) -> Mapping[str, str]:
        """Texts by file name that go into every model's folder, because using it needs them; by default none."""
        return {}

    def cost_hint_s(self, model: nn.Module, budget: float) -> float | None:
        """Rough seconds of training ``model`` for ``budget``, for ``--plan``; None if unknown."""
        return None

    def example_keys(self, split: str) -> list[str] | None:
        """A hash of each raw example of a split, so that anybody can check that splits share none;
        None if the task does not know its examples."""
        return None


@dataclass(frozen=True)
class Past:
    """An evaluation of the same study that is complete.

    Args:
        genotype: Canonical row ``(D,)``.
        evaluation: What was found.
    """

    genotype: Genotypes
    evaluation: Evaluation


class Evaluator(ABC):
    """Quality of an architecture at a price. Runs ``gnomon.testing.EvaluatorSuite``."""

    name: ClassVar[str]
    has_weights: ClassVar[bool] = True
    """False for recorded tables: such studies stop after verification."""

    def prepare(self, folder: Path, *, seed: int, progress: Progress | None = None) -> None:  # noqa: B027 - optional
        """Makes what all evaluations share, for example a trained supernet; by default nothing.

        Called before the first evaluation, by one worker at a time, the others wait. A killed one
        goes on where it was; where all is there already it returns at once.

        Args:
            folder: The study's own, for files.
            seed: The study's.
            progress: Called with (budget spent, metric so far).
        """

    def observe(self, past: Sequence[Past], to_beat: npt.NDArray[np.float64]) -> None:  # noqa: B027 - optional
        """Told before each evaluation of a search what is known by then; by default it does not matter.

        Args:
            past: Complete evaluations of the study ``(N,)``, without copies for duplicates, in order of number.
            to_beat: Quality ``(N,)`` above which the architecture that comes next is better than each of them in
                something; minus infinity where it is so at any quality.
        """

    @property
    def observes(self) -> bool:
        """Whether it overrides :meth:`observe`: evaluations then depend on those before."""
        return type(self).observe is not Evaluator.observe

    @abstractmethod
    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """Validation quality. Deterministic by seed (and by what was observed).

        Raises:
            GnomonError: If this architecture cannot be evaluated; it costs one evaluation.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What makes evaluations comparable, as JSON."""

    @property
    def gives_initial(self) -> bool:
        """Whether it overrides :meth:`initial`: full trainings then depend on what :meth:`prepare` made."""
        return type(self).initial is not Evaluator.initial

    def initial(self, architecture: Architecture) -> nn.Module | None:
        """The module with which a full training of an architecture starts, once :meth:`prepare` was called; None, by
        default, for what the space starts with. Deterministic."""
        return None

    def cost_hint_s(self) -> float | None:
        """Rough seconds of one evaluation, for ``--plan``; None if unknown."""
        return None

    def preparation_hint_s(self) -> float | None:
        """Rough seconds of :meth:`prepare`, for ``--plan``; None if unknown."""
        return 0.0

    def shared_training(self) -> SharedTraining | None:
        """How the weights were trained that all evaluations share, once :meth:`prepare` made them; None if there are
        no such weights."""
        return None
