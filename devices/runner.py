"""The part of a device that lives in the child process: load a graph, run it, read a clock.

A new runtime is one file with one :class:`Runner` (and its device), and one conf file. Importing
that file must not import the runtime: runners import it in ``__init__``.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError, MeasurementError
from .answers import random_input, read_answers, relative_error
from .energy import Meter, cpu_meter
from .jobs import GraphJob, ModelJob
from .process import peak_memory_bytes, reset_peak_memory

Array: TypeAlias = npt.NDArray[Any]
GraphFunction: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Any]]
"""Runs a loaded graph on tensors by input name; returns its outputs in the graph's order."""


class Runner(ABC):
    """One runtime in a child process.

    Args:
        threads: Threads that the runtime may use for one inference.
        options: The device's own options, by keyword.
    """

    name: ClassVar[str]

    def __init__(self, threads: int, **options: Any) -> None:
        self.threads = threads
        if options:
            raise DeviceError("unknown option of this runner", field="options", value=sorted(options))

    @abstractmethod
    def load(self, graph: GraphJob, model: ModelJob) -> GraphFunction:
        """Loads one graph of ``model``, ready to run."""

    def tensor(self, array: Array) -> Any:
        """A numpy array as the runtime's tensor."""
        return array

    def array(self, tensor: Any) -> Array:
        """A tensor of the runtime as a numpy array."""
        return np.asarray(tensor)

    def mark(self) -> Any:
        """A point in time; what was started before it is waited for in :meth:`elapsed_ms`."""
        return time.perf_counter_ns()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two marks."""
        return float(end - start) * 1e-6

    def facts(self) -> Mapping[str, float]:
        """Figures that this runner found out about the last model, for the measurement; mostly none."""
        return {}

    def meter(self) -> Meter | None:
        """Counts the energy of whatever computes here; None where nothing does. By default the processor's."""
        return cpu_meter()

    def reset_peak_memory(self) -> None:
        """Called before a model is loaded."""
        reset_peak_memory()

    def peak_memory_bytes(self) -> int | None:
        """Peak memory since :meth:`reset_peak_memory`: of the process, or of the accelerator."""
        return peak_memory_bytes()


class Session:
    """A loaded model: runs its plan on deterministic random inputs and times it.

    Args:
        runner: The runtime.
        model: Graphs and plan; every graph that the plan calls is loaded here.
    """

    def __init__(self, runner: Runner, model: ModelJob) -> None:
        self._runner = runner
        self._plan = model.plan
        self._jobs = {call.graph: model.graphs[call.graph] for call in model.plan}
        self._graphs = {name: runner.load(job, model) for name, job in self._jobs.items()}
        self._inputs = {
            name: {t.name: runner.tensor(random_input(t)) for t in job.inputs} for name, job in self._jobs.items()
        }

    def run(self) -> tuple[float, dict[str, float]]:
        """One run of the plan: ms of the whole, and ms of each graph summed over its calls."""
        mark, elapsed_ms = self._runner.mark, self._runner.elapsed_ms
        if len(self._plan) == 1 and self._plan[0].times == 1:
            name = self._plan[0].graph
            function, inputs = self._graphs[name], self._inputs[name]
            start = mark()
            function(inputs)
            total = elapsed_ms(start, mark())
            return total, {name: total}
        marks = [("", mark())]
        for name, _ in self._calls():
            marks.append((name, mark()))
        parts = dict.fromkeys(self._graphs, 0.0)
        for (_, start), (name, end) in pairwise(marks):
            parts[name] += elapsed_ms(start, end)
        return elapsed_ms(marks[0][1], marks[-1][1]), parts

    def check(self) -> None:
        """Compares every graph's answers to its random inputs with those expected, where there are any,
        then runs the plan once and looks at every output.

        Raises:
            MeasurementError: If an output is not finite, or further from the expected than the
                graph's tolerance.
        """
        for name, job in self._jobs.items():
            if job.answers is not None:
                self._compare(name, job, job.answers)
        for name, outputs in self._calls():
            for output, tensor in zip(self._jobs[name].outputs, outputs, strict=False):
                array = self._runner.array(tensor)
                if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                    raise MeasurementError(f"output {output!r} of graph {name!r} is not finite")

    def reply(self) -> None:
        """Answers the questions that a graph has, one run each, into the file for the replies."""
        for name, job in self._jobs.items():
            if job.questions is None or job.replies is None:
                continue
            questions = read_answers(job.questions)
            replies: dict[str, list[Array]] = {output: [] for output in job.outputs}
            for index in range(len(questions[job.inputs[0].name])):
                fed = {t.name: self._runner.tensor(np.ascontiguousarray(questions[t.name][index])) for t in job.inputs}
                for output, tensor in zip(job.outputs, self._graphs[name](fed), strict=True):
                    replies[output].append(np.array(self._runner.array(tensor)))
            np.savez(job.replies, **{output: np.stack(arrays) for output, arrays in replies.items()})  # type: ignore[arg-type]

    def _compare(self, name: str, job: GraphJob, answers: str) -> None:
        expected = read_answers(answers)
        outputs = self._graphs[name](self._inputs[name])
        for output, tensor in zip(job.outputs, outputs, strict=True):
            error = relative_error(self._runner.array(tensor), expected[output])
            if not error <= job.tolerance:
                raise MeasurementError(
                    f"output {output!r} of graph {name!r} differs from the model's by {error:.2g} of its size",
                    field="tolerance",
                    value=job.tolerance,
                )

    def _calls(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Runs the plan, one call at a time, feeding outputs to inputs of the calls that follow."""
        state: dict[str, Any] = {}
        for call in self._plan:
            function, inputs, outputs = (
                self._graphs[call.graph],
                self._inputs[call.graph],
                self._jobs[call.graph].outputs,
            )
            for _ in range(call.times):
                fed = {name: state.get(name, tensor) for name, tensor in inputs.items()} if state else inputs
                values = function(fed)
                yield call.graph, values
                if call.feeds:
                    named = dict(zip(outputs, values, strict=False))
                    state.update({target: named[source] for source, target in call.feeds.items()})


def import_class(path: str) -> Any:
    """The class of a dotted path.

    Raises:
        DeviceError: If it cannot be imported.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DeviceError(f"cannot import it: {error}", field="runner", value=path) from error
