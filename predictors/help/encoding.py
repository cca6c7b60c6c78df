"""How HELP's network sees an architecture: a graph with one operation a node, or one vector.

Shapes: N architectures, V nodes, C columns a node, D decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...search_spaces import Genotypes, SearchSpace
from ...search_spaces.nasbench201 import NASBench201
from ...search_spaces.nasbench201_cells import EDGES, NODES, OPS
from ..features import one_hot

Float32Array = npt.NDArray[np.float32]

GRAPH_LAYERS = 4
VECTOR_LAYERS = 2


@dataclass(frozen=True)
class ArchitectureGraph:
    """What the architecture branch of the network is built for.

    Args:
        adjacency: ``(V, V)``: row ``v`` says whose values node ``v`` sums up. The last node's output
            stands for the architecture.
        n_columns: C.
        layers: Graph convolutions; with a single node they are fully connected layers.
    """

    adjacency: Float32Array
    n_columns: int
    layers: int


def architecture_graph(space: SearchSpace) -> ArchitectureGraph:
    """NAS-Bench-201: 9 nodes with 8 columns; any other space: one node with its one-hot choices."""
    if isinstance(space, NASBench201):
        return ArchitectureGraph(_cell_adjacency(), len(OPS) + 3, GRAPH_LAYERS)
    n_choices = int(space.algebra.cardinalities.sum())
    return ArchitectureGraph(np.ones((1, 1), dtype=np.float32), n_choices, VECTOR_LAYERS)


def node_columns(space: SearchSpace, genotypes: Genotypes) -> Float32Array:
    """Columns of each node ``(V, N, C)``: one-hot, nodes first, so that a layer is one product.

    HELP writes FBNet's nine blocks as six bits; the one-hot of the same choices says no less.
    """
    if not isinstance(space, NASBench201):
        return np.asarray(one_hot(space, genotypes)[None], dtype=np.float32)
    n_operations = len(OPS)
    columns = np.zeros((len(EDGES) + 3, len(genotypes), n_operations + 3), dtype=np.float32)
    columns[1:-2] = np.eye(n_operations + 3, dtype=np.float32)[genotypes.T]
    for node, column in ((0, n_operations), (-2, n_operations + 1), (-1, n_operations + 2)):
        columns[node, :, column] = 1.0
    return columns


def _cell_adjacency() -> Float32Array:
    """Nodes: input, the six operations, output, global. An operation reads the operations that write
    to its source node, and itself; the global node reads all (BRP-NAS, 2007.08668, section 3.1)."""
    n = len(EDGES)
    adjacency = np.eye(n + 3, dtype=np.float32)
    for reader, (source, _) in enumerate(EDGES, start=1):
        adjacency[reader, 0] = source == 0
        for writer, (_, target) in enumerate(EDGES, start=1):
            adjacency[reader, writer] += source == target
    adjacency[n + 1, 1 : n + 1] = [target == NODES - 1 for _, target in EDGES]
    adjacency[n + 2] = 1.0
    return adjacency
