"""Cells of NAS-Bench-201 as graphs: strings, liveness, memory, equality as functions.

A cell has nodes 0 (its input) to 3 (its output); each pair i < j is joined by an edge with one of
five operations, and a node is the sum of what its edges bring. An edge is *live* if it lies on a
path from input to output that no ``none`` interrupts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
NODES = 4
EDGES = tuple((source, target) for target in range(1, NODES) for source in range(target))
"""(source, target) in the order of the benchmark's strings."""
TABLE_SIZE = len(OPS) ** len(EDGES)

Cell: TypeAlias = tuple[int, ...]
"""Operation index of each edge."""
CellPlan: TypeAlias = tuple[tuple[tuple[int, int], ...], ...]
"""For nodes 1 to 3 the (source, operation) pairs that are added; empty for a node of zeros."""


def format_cell(cell: Sequence[int]) -> str:
    """The benchmark's string, for example ``|none~0|+|none~0|none~1|+|none~0|none~1|none~2|``."""
    parts = []
    for node in range(1, NODES):
        edges = [(s, op) for (s, t), op in zip(EDGES, cell, strict=True) if t == node]
        parts.append("|" + "|".join(f"{OPS[op]}~{source}" for source, op in edges) + "|")
    return "+".join(parts)


def parse_cell(text: str) -> Cell:
    """The operations behind a string of the benchmark.

    Raises:
        SpaceError: If it is not one.
    """
    words = [word for node in text.strip().split("+") for word in node.strip("|").split("|")]
    names = [word.partition("~")[0] for word in words]
    try:
        cell = tuple(OPS.index(name) for name in names)
        if format_cell(cell) == text.strip():
            return cell
    except ValueError:
        pass
    raise SpaceError(
        "not a cell of NAS-Bench-201", field="arch_string", value=text, allowed="|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
    )


def all_cells() -> npt.NDArray[np.int8]:
    """All cells ``(15625, 6)`` in lexicographic order: the row is the mixed-radix code."""
    return np.indices((len(OPS),) * len(EDGES), dtype=np.int8).reshape(len(EDGES), -1).T.copy()


def live_edges(cells: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Which edges are live ``(N, 6)``."""
    open_edges = cells != NONE
    reached = np.zeros((len(cells), NODES), dtype=bool)
    reaches = np.zeros((len(cells), NODES), dtype=bool)
    reached[:, 0] = reaches[:, -1] = True
    for edge, (source, target) in enumerate(EDGES):
        reached[:, target] |= open_edges[:, edge] & reached[:, source]
    for edge in reversed(range(len(EDGES))):
        source, target = EDGES[edge]
        reaches[:, source] |= open_edges[:, edge] & reaches[:, target]
    sources, targets = map(list, zip(*EDGES, strict=True))
    live: npt.NDArray[np.bool_] = open_edges & reached[:, sources] & reaches[:, targets]
    return live


def longest_paths(cells: npt.NDArray[np.int8], lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Length ``(N,)`` of the longest live path; ``lengths (5,)`` gives the length of each operation."""
    live = live_edges(cells)
    longest = np.zeros((len(cells), NODES))
    for edge, (source, target) in enumerate(EDGES):
        along = np.where(live[:, edge], longest[:, source] + lengths[cells[:, edge]], 0.0)
        longest[:, target] = np.maximum(longest[:, target], along)
    result: npt.NDArray[np.float64] = longest[:, -1]
    return result


def cell_plan(cell: Sequence[int], *, simplify: bool) -> CellPlan:
    """What each node adds up. ``none`` adds nothing; with ``simplify`` nor do edges that are not live."""
    kept = live_edges(np.array([cell], dtype=np.int8))[0] if simplify else [op != NONE for op in cell]
    return tuple(
        tuple((s, int(op)) for (s, t), op, keep in zip(EDGES, cell, kept, strict=True) if t == node and keep)
        for node in range(1, NODES)
    )


# ---- Memory ----------------------------------------------------------------------------------

Step: TypeAlias = tuple[bool, tuple[int, ...]]
"""One operation of a running cell: whether it may write over an operand, and the values it reads.
Values are numbered in order; 0 is the cell's input."""


def peak_maps(plan: CellPlan) -> int:
    """Most feature maps alive at once while a cell runs node by node, edge by edge.

    A convolution applies ReLU to its source first, in place if nobody reads the source later;
    additions are in place where an operand is not read later. ``skip_connect`` copies nothing.
    """
    return _peak_maps(tuple(tuple((s, CONV1 if op == CONV3 else op) for s, op in edges) for edges in plan))


@cache
def _peak_maps(plan: CellPlan) -> int:
    steps, result = _steps(plan)
    last_read = dict.fromkeys(range(len(steps) + 1), -1)
    for index, (_, reads) in enumerate(steps):
        last_read |= dict.fromkeys(reads, index)
    last_read[result] = len(steps)
    buffer = {0: 0}

    def needed_after(candidate: int, index: int) -> bool:
        return any(held == candidate and last_read[value] > index for value, held in buffer.items())

    peak, live = 1, {0}
    for index, (may_reuse, reads) in enumerate(steps):
        value = index + 1
        free = [buffer[read] for read in reads if may_reuse and not needed_after(buffer[read], index)]
        buffer[value] = free[0] if free else value
        live.add(buffer[value])
        peak = max(peak, len(live))
        live = {held for held in live if needed_after(held, index)}
    return peak


def _steps(plan: CellPlan) -> tuple[list[Step], int]:
    """The operations in order, and which value is the cell's output."""
    steps: list[Step] = []

    def write(may_reuse: bool, *reads: int) -> int:
        steps.append((may_reuse, reads))
        return len(steps)

    nodes = [0]
    for edges in plan:
        total: int | None = None
        for source, op in edges:
            term = nodes[source]
            if op in (CONV1, CONV3):
                term = write(False, write(True, term))
            elif op == POOL:
                term = write(False, term)
            total = term if total is None else write(True, total, term)
        nodes.append(write(False, nodes[0]) if total is None else total)
    return steps, nodes[-1]


# ---- Equality as functions -------------------------------------------------------------------

Term: TypeAlias = int
"""Number of an operation that computes something; 0 is the cell's input."""


def function_key(cell: Sequence[int]) -> str:
    """A text that two cells share only if they compute the same function of their weights.

    Edges that are not live are left out and ``skip_connect`` is folded into the sums. Each
    convolution keeps its identity: a node read twice is not the same as two convolutions. Equal
    pools of equal inputs are one pool. (An edge that starts from nothing brings at most a constant
    per channel, the offset of its batch norm; it is left out as in the benchmark.)
    """
    live = live_edges(np.array([cell], dtype=np.int8))[0]
    operations: list[tuple[int, tuple[Term, ...]]] = [(NONE, ())]
    nodes: list[tuple[Term, ...]] = [(0,), (), (), ()]
    for edge, (source, target) in enumerate(EDGES):
        if not live[edge]:
            continue
        terms = nodes[source]
        if cell[edge] != SKIP:
            operation = (int(cell[edge]), terms)
            if cell[edge] != POOL or operation not in operations:
                operations.append(operation)
                terms = (len(operations) - 1,)
            else:
                terms = (operations.index(operation),)
        nodes[target] = tuple(sorted(nodes[target] + terms))
    return _written(nodes[-1], operations) if nodes[-1] else "0"


def _written(output: tuple[Term, ...], operations: list[tuple[int, tuple[Term, ...]]]) -> str:
    """The expression with shared operations labelled in the order in which they are first met."""
    letters = {CONV1: "c1", CONV3: "c3", POOL: "p"}

    def expanded(term: Term) -> str:
        op, terms = operations[term]
        return "x" if term == 0 else f"{letters[op]}({'+'.join(sorted(map(expanded, terms)))})"

    labels: dict[Term, int] = {}

    def labelled(term: Term) -> str:
        op, terms = operations[term]
        if term == 0:
            return "x"
        if term in labels:
            return f"#{labels[term]}"
        labels[term] = len(labels)
        return f"{letters[op]}#{labels[term]}({'+'.join(map(labelled, sorted(terms, key=expanded)))})"

    return "+".join(map(labelled, sorted(output, key=expanded)))
