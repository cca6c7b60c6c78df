"""What the parent process sends to a measuring child, and what comes back.

Everything is JSON: one :class:`RoundJob` to the child's standard input, one event a line back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..records import STATISTICS, Workload
from ..schema import Record
from ..search_spaces import Architecture, Deployable
from .load import Load
from .protocol import Protocol


@dataclass(frozen=True)
class TensorJob(Record):
    """One input of a graph, as :class:`~gnomon.search_spaces.TensorSpec`."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: int | None = None


@dataclass(frozen=True)
class GraphJob(Record):
    """One graph to load.

    Args:
        inputs, outputs: Of the graph, in order.
        path: The file that the runner loads; None for a module that the child builds.
        answers: npz file of the outputs that are expected of random inputs; None for no check.
        tolerance: Relative error of outputs up to which a latency counts.
        questions: npz file of inputs by name, each ``(N, *shape)``, to be answered before any timing.
        replies: npz file to write the outputs of the questions to, by name ``(N, *shape)``.
    """

    inputs: tuple[TensorJob, ...]
    outputs: tuple[str, ...]
    path: str | None = None
    answers: str | None = None
    tolerance: float = 0.0
    questions: str | None = None
    replies: str | None = None


@dataclass(frozen=True)
class CallJob(Record):
    """One step of the plan, as :class:`~gnomon.search_spaces.Call`."""

    graph: str
    times: int = 1
    feeds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelJob(Record):
    """One model to load and time, with the recipe of its modules where there is no file."""

    name: str
    graphs: Mapping[str, GraphJob]
    plan: tuple[CallJob, ...]
    workload: Workload
    architecture: Architecture | None = None

    @classmethod
    def of(cls, deployable: Deployable) -> ModelJob:
        """The job that times ``deployable``."""
        graphs = {
            name: GraphJob(
                tuple(TensorJob(t.name, t.shape, t.dtype, t.constant) for t in graph.inputs),
                graph.outputs,
                None if graph.onnx_path is None else str(graph.onnx_path.resolve()),
            )
            for name, graph in deployable.graphs.items()
        }
        plan = tuple(CallJob(call.graph, call.times, dict(call.feeds)) for call in deployable.plan)
        return cls(deployable.name, graphs, plan, deployable.workload, deployable.architecture)


@dataclass(frozen=True)
class RoundJob(Record):
    """The work of one child process.

    Args:
        runner: Class path of the :class:`~gnomon.devices.runner.Runner`.
        threads: Threads that the runtime may use.
        options: Keyword arguments of the runner.
        models: In the order in which they are to be timed.
        protocol: Numbers of runs and seconds.
        reference: Timed before, between and after the models; None for no reference.
        cpus: Cores to pin the process to; empty for no pinning.
        realtime: Ask for SCHED_FIFO.
        load: Kept up on the machine while the round lasts; None for none.
        import_paths: Where the parent finds modules (a user's own space or runner).
    """

    SCHEMA: ClassVar[str] = "gnomon.round/3"

    runner: str
    threads: int
    options: Mapping[str, Any]
    models: tuple[ModelJob, ...]
    protocol: Protocol
    reference: ModelJob | None = None
    cpus: tuple[int, ...] = ()
    realtime: bool = False
    load: Load | None = None
    import_paths: tuple[str, ...] = ()

    def only(self, models: tuple[ModelJob, ...]) -> RoundJob:
        """The same round for other models."""
        return replace(self, models=models)


@dataclass(frozen=True)
class Quantiles(Record):
    """Latencies in ms of one series of runs."""

    minimum: float
    p10: float
    median: float
    p90: float

    def scaled(self, factor: float) -> Quantiles:
        """All of them times ``factor``."""
        return Quantiles(*(getattr(self, name) * factor for name in STATISTICS))


@dataclass(frozen=True)
class Sample(Record):
    """One model in one process: latencies in ms of the whole plan.

    Args:
        plan: Of the whole plan.
        parts: Of each graph of the plan, by name, summed over its calls.
        n_runs, n_warmup: Timed and untimed iterations.
        peak_memory_bytes: Largest resident memory of the process while the model was loaded and run.
        reference: The reference model around it (mean of before and after); None if there is none.
        realtime, pinned: As the process really obtained them.
        facts: What the runner found out, see :meth:`~gnomon.devices.runner.Runner.facts`.
        steady: Whether warm-up ended because latencies no longer fell; None if that was not looked at.
        contention: Share of the timed seconds in which the process did not get its core; None if unknown.
        energy_mj: Of one run of the plan above idle; None without a meter.
    """

    plan: Quantiles
    parts: Mapping[str, Quantiles]
    n_runs: int
    n_warmup: int
    peak_memory_bytes: int | None = None
    reference: Quantiles | None = None
    realtime: bool = False
    pinned: bool = False
    facts: Mapping[str, float] = field(default_factory=dict)
    steady: bool | None = None
    contention: float | None = None
    energy_mj: float | None = None
