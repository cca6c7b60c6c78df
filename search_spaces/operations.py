"""Networks as graphs of operations, as they were built and as a runtime executes them.

Made from any torch module (:mod:`.operations_torch`) or ONNX file (:mod:`.operations_onnx`), so that
a predictor sees a user's own network like one of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from .layer_specs import BLOCKS, whole_blocks

CONVOLUTIONS = ("dense", "pointwise", "depthwise", "grouped", "squeeze")
"""Kinds of convolution: across channels and k x k, 1x1, one channel each, grouped, on a 1x1 map."""

ABSORBED = ("norm", "activation")
"""What a runtime fuses into the operation before it, if nothing else reads that."""

ABSORBING = (*CONVOLUTIONS, "linear", "add", "norm", "multiply")

VIEW, CONSTANT = "view", "constant"


@dataclass(frozen=True)
class Operation:
    """One node of a graph.

    Args:
        name: Of its result, unique.
        kind: One of ``CONVOLUTIONS``, ``linear``, ``pool``, ``mean``, ``add``, ``multiply``, ``norm``,
            ``activation``, ``concat``, ``transpose``, ``pad``, ``slice``, ``view`` (moves nothing),
            ``constant`` or ``other``.
        reads: Names of what it reads; a name that no operation has is an input of the graph.
        shape: Of its result, batch first.
        read_elements: Elements of the activations that it reads.
        macs: Multiply-accumulates.
        parameters: Trainable numbers.
        kernel: Edge of a convolution's window.
        inner: Input channels that each output channel of a convolution reads.
        label: What kind of activation.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    read_elements: int
    macs: int = 0
    parameters: int = 0
    kernel: int = 0
    inner: int = 1
    label: str = ""

    @property
    def elements(self) -> int:
        """Of the result."""
        return prod(self.shape)


@dataclass(frozen=True)
class OperationGraph:
    """Operations in an order in which they can run, and the names of the results."""

    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]

    def readers(self) -> dict[str, int]:
        """How many operations read each value; an output counts as read once more."""
        counts: dict[str, int] = {}
        for name in (*self.outputs, *(read for operation in self.operations for read in operation.reads)):
            counts[name] = counts.get(name, 0) + 1
        return counts


def executed(graph: OperationGraph) -> OperationGraph:
    """The graph as an inference runtime runs it: views, operations on constants and additions of
    constants folded, operations removed whose results nobody needs, norms and activations fused into
    what they follow."""
    return _fused(live(graph))


def live(graph: OperationGraph) -> OperationGraph:
    """The graph with views, operations on constants and additions of constants folded, and operations removed
    whose results nobody needs; nothing is fused."""
    return _live(_folded(graph))


def _folded(graph: OperationGraph) -> OperationGraph:
    alias: dict[str, str] = {}
    constants: set[str] = set()
    kept = []
    for operation in graph.operations:
        reads = tuple(alias.get(name, name) for name in operation.reads)
        if operation.kind == CONSTANT or (reads and constants.issuperset(reads)):
            constants.add(operation.name)
            operation = replace(operation, kind=CONSTANT)
        if operation.kind == "add":
            reads = tuple(name for name in reads if name not in constants)
        if reads and (operation.kind == VIEW or (operation.kind == "add" and len(reads) == 1)):
            alias[operation.name] = reads[0]
        else:
            kept.append(replace(operation, reads=reads))
    return OperationGraph(tuple(kept), tuple(alias.get(name, name) for name in graph.outputs))


def _live(graph: OperationGraph) -> OperationGraph:
    needed = set(graph.outputs)
    kept = []
    for operation in reversed(graph.operations):
        if operation.name in needed:
            needed.update(operation.reads)
            kept.append(operation)
    return OperationGraph(tuple(op for op in reversed(kept) if op.kind != CONSTANT), graph.outputs)


def _fused(graph: OperationGraph) -> OperationGraph:
    readers, by_name = graph.readers(), {op.name: op for op in graph.operations}
    alias: dict[str, str] = {}
    for operation in graph.operations:
        if operation.kind not in ABSORBED or len(operation.reads) != 1:
            continue
        source = operation.reads[0]
        host = by_name.get(alias.get(source, source))
        if host is not None and host.kind in ABSORBING and readers.get(source) == 1:
            alias[operation.name] = host.name
            by_name[host.name] = replace(host, parameters=host.parameters + operation.parameters)
    kept = tuple(
        replace(by_name[op.name], reads=tuple(alias.get(name, name) for name in op.reads))
        for op in graph.operations
        if op.name not in alias
    )
    return OperationGraph(kept, tuple(alias.get(name, name) for name in graph.outputs))


def features(graph: OperationGraph) -> dict[str, float]:
    """What predictors see of a graph; names as in :data:`~.cost_tables.FEATURES` where the same is
    meant there.

    ``<kind>_convs``, ``<kind>_macs``, ``<kind>_macs16``, ``<kind>_cio`` by kind of convolution (16: channels
    rounded up to whole blocks; HarDNet's CIO, 1909.00948: elements read and written), counts and elements
    of other operations, ``kernels`` (operations that run), ``traffic`` (elements they read and write,
    weights aside), and along the critical path ``path_kernels`` and ``path_macs``.
    """
    sums: dict[str, float] = {}

    def add(name: str, value: float) -> None:
        sums[name] = sums.get(name, 0.0) + float(value)

    for operation in graph.operations:
        add("parameters", operation.parameters)
        if operation.kind in (VIEW, CONSTANT):
            continue
        add("kernels", 1)
        add("traffic", operation.read_elements + operation.elements)
        add("macs", operation.macs)
        for name, value in _named(operation).items():
            add(name, value)
    return {**sums, **_critical_path(graph)}


def _named(operation: Operation) -> Mapping[str, float]:
    elements, moved = operation.elements, operation.read_elements + operation.elements
    if operation.kind in CONVOLUTIONS:
        name = f"depthwise{operation.kernel}" if operation.kind == "depthwise" else operation.kind
        blocked = {f"{name}_macs{block}": _blocked_macs(operation, block) for block in BLOCKS}
        return {f"{name}_convs": 1, f"{name}_macs": operation.macs, f"{name}_cio": moved, **blocked}
    if operation.kind == "linear":
        return {"linear_layers": 1, "linear_macs": operation.macs}
    if operation.kind == "add":
        return {"shortcuts": 1, "shortcut_elements": elements}
    gated = operation.read_elements < 2 * elements or prod(operation.shape[2:]) == 1
    if operation.kind == "multiply" and len(operation.shape) > 2 and gated:
        # A map times a gate: it is read twice, for the gate and here, and written once.
        return {"squeezes": 1, "squeeze_elements": 3 * elements}
    if operation.kind == "transpose":
        return {"shuffles": 1, "shuffle_elements": moved}
    if operation.kind == "activation" and operation.label == "hardswish":
        return {"activations": 1, "activation_elements": elements, "hardswish_elements": elements}
    return {f"{operation.kind}s": 1, f"{operation.kind}_elements": moved if operation.kind == "pool" else elements}


def _blocked_macs(operation: Operation, block: int) -> float:
    """Multiply-accumulates of a convolution with channels rounded up to whole blocks."""
    blocked = 1.0 * operation.macs
    for channels in (operation.shape[1], operation.inner):
        blocked *= whole_blocks(channels, block) / channels
    return blocked


def _critical_path(graph: OperationGraph) -> dict[str, float]:
    kernels: dict[str, int] = {}
    macs: dict[str, int] = {}
    for operation in graph.operations:
        runs = 0 if operation.kind in (VIEW, CONSTANT) else 1
        kernels[operation.name] = runs + max((kernels.get(name, 0) for name in operation.reads), default=0)
        macs[operation.name] = operation.macs + max((macs.get(name, 0) for name in operation.reads), default=0)
    return {
        "path_kernels": float(max((kernels.get(name, 0) for name in graph.outputs), default=0)),
        "path_macs": float(max((macs.get(name, 0) for name in graph.outputs), default=0)),
    }
