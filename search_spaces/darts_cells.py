"""Cells of DARTS as decisions (1806.09055, Section 2.1 and Figure 1).

A cell has two inputs (0: the output of the cell before the last, 1: of the last one) and four nodes (2 to 5). Each node
is the sum of two edges from different earlier nodes, each with one operation; the cell's output is the concatenation of
its four nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

from .decision import Choice, Decision

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NONE, MAX_POOL, AVG_POOL, SKIP = range(4)
KERNELS = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "dil_conv_3x3": 3, "dil_conv_5x5": 5}
CELLS = ("normal", "reduction")
INPUTS, NODES = 2, 4
EDGES = tuple((source, node) for node in range(INPUTS, INPUTS + NODES) for source in range(node))
"""All 14 (source, node) of which a node keeps two."""

Plan: TypeAlias = tuple[tuple[tuple[int, int], ...], ...]
"""For each node its (source, operation) pairs; ``none`` is left out."""


def pairs(node: int) -> tuple[tuple[int, int], ...]:
    """The pairs of sources that a node can keep."""
    return tuple(combinations(range(node), 2))


def pair_name(pair: tuple[int, int]) -> str:
    """The choice of a pair, for example ``0+1``."""
    return f"{pair[0]}+{pair[1]}"


def cell_decisions(cell: str) -> list[Decision]:
    """17 decisions of a cell: which edges each node keeps (node 2 has but two), and the operation of each edge."""
    decisions = []
    for node in range(INPUTS, INPUTS + NODES):
        several = len(pairs(node)) > 1
        inputs = f"{cell}.inputs{node}"
        if several:
            decisions.append(Decision(inputs, tuple(pair_name(pair) for pair in pairs(node))))
        for source in range(node):
            kept: dict[str, tuple[Choice, ...]] = {}
            if several:
                kept[inputs] = tuple(pair_name(pair) for pair in pairs(node) if source in pair)
            decisions.append(Decision(f"{cell}.op{source}_{node}", OPS, active_when=kept))
    return decisions


def cell_plan(config: Mapping[str, Any], cell: str) -> Plan:
    """What the nodes of a cell add up under a config of the space."""
    nodes = []
    for node in range(INPUTS, INPUTS + NODES):
        edges = []
        for source in range(node):
            op = config.get(f"{cell}.op{source}_{node}")
            if op is not None and op != OPS[NONE]:
                edges.append((source, OPS.index(str(op))))
        nodes.append(tuple(edges))
    return tuple(nodes)


Genes: TypeAlias = Sequence[tuple[str, int]]
"""Two (operation, source) for each node, as DARTS prints a cell."""

DARTS_V2: Mapping[str, Genes] = {
    "normal": (
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)),
    ),
    "reduction": (
        *(("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1)),
        *(("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)),
    ),
}
"""The cells that second-order DARTS found on CIFAR-10."""


def config_of(cells: Mapping[str, Genes]) -> dict[str, Choice]:
    """A config of the space from cells as DARTS prints them."""
    config: dict[str, Choice] = {}
    for cell, genes in cells.items():
        for index, node in enumerate(range(INPUTS, INPUTS + NODES)):
            chosen = sorted(genes[2 * index : 2 * index + 2], key=lambda gene: gene[1])
            if len(pairs(node)) > 1:
                config[f"{cell}.inputs{node}"] = pair_name((chosen[0][1], chosen[1][1]))
            config |= {f"{cell}.op{source}_{node}": op for op, source in chosen}
    return config
