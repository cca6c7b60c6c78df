"""What a device runs: named graphs and the plan in which they are called.

A classifier is one graph called once. An encoder-decoder is ``encoder`` once and ``step`` n times,
feeding states back. The latency of a deployable is the latency of its plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from .architecture import Architecture
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TensorSpec:
    """A graph input: shape with the batch dimension, numpy dtype name, axes that may vary.

    ``constant`` is the value of every element where inputs are made up, for timing and checks: of inputs for
    which not any value will do, such as a position. None for random ones.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    dynamic_axes: Mapping[int, str] = field(default_factory=dict)
    constant: int | None = None


@dataclass(frozen=True)
class Graph:
    """One exportable graph.

    Exactly one of ``module`` (a factory, called only by who needs the torch module) and
    ``onnx_path`` (anybody's ONNX file) is set.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    module: Callable[[], nn.Module] | None = None
    onnx_path: Path | None = None


@dataclass(frozen=True)
class Call:
    """Runs ``graph`` ``times`` times; ``feeds`` maps outputs to inputs of the following calls."""

    graph: str
    times: int = 1
    feeds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployable:
    """Named graphs with a call plan, for one workload.

    Args:
        name: Unique within one round of measuring: an architecture's key, or a file name.
        workload: What the plan is timed on.
        graphs: By name; ``main`` for a single graph.
        plan: Calls in order.
        architecture: Set where a space made it; recorded devices and torch runners (which
            rebuild the module in their child process) need it.
    """

    name: str
    workload: Workload
    graphs: Mapping[str, Graph]
    plan: tuple[Call, ...] = (Call("main"),)
    architecture: Architecture | None = None

    @cached_property
    def called(self) -> Deployable:
        """Without the graphs that the plan never calls, which nobody needs to prepare."""
        graphs = {call.graph: self.graphs[call.graph] for call in self.plan}
        return self if len(graphs) == len(self.graphs) else replace(self, graphs=graphs)

    @cached_property
    def id(self) -> str:
        """Identity of what is measured: file contents for ONNX files (so that a trained file is
        never confused with an untrained one), else space and architecture. Ends in the plan."""
        digest = sha256(repr(self.plan).encode())
        for name, graph in sorted(self.graphs.items()):
            digest.update(name.encode())
            if graph.onnx_path is not None:
                digest.update(sha256(graph.onnx_path.read_bytes()).digest())
            elif self.architecture is not None:
                digest.update(self.architecture.to_json().encode())
            else:
                digest.update(self.name.encode())
        return digest.hexdigest()[:24]
