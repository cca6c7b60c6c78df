"""HELP's networks as functions of named weights, for many tasks at once.

Shapes: T tasks (or draws of one task), N architectures, V nodes, C columns a node, R references,
H width. Weights of T tasks have T as their first axis; shared ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .encoding import ArchitectureGraph

Weights: TypeAlias = dict[str, Tensor]

WIDTH = 100
HEAD_LAYERS = 3
MODULATED = tuple(f"head{layer}" for layer in range(HEAD_LAYERS))
MODULATION_SCALE = 0.01
"""A draw of z changes a weight by this share, and a bias by this much."""


@dataclass(frozen=True)
class HelpNetwork:
    """Latency scores from an architecture and a hardware embedding (2106.08630, section 3).

    Graph convolutions (or fully connected layers, where the graph is a single node) read the
    architecture, two layers read the embedding, three layers read both.

    Args:
        graph: How architectures are encoded.
        n_references: R, the size of the embedding.
        width: H of both branches; the head is twice as wide.
    """

    graph: ArchitectureGraph
    n_references: int
    width: int = WIDTH

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight by name; matrices are ``(inputs, outputs)``."""
        h = self.width
        architecture = [self.graph.n_columns] + [h] * self.graph.layers
        sizes = {
            **{f"architecture{i}": pair for i, pair in enumerate(pairwise(architecture))},
            "device0": (self.n_references, h),
            "device1": (h, h),
            "head0": (2 * h, 2 * h),
            "head1": (2 * h, 2 * h),
            "head2": (2 * h, 1),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for name, size in sizes.items():
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = size, size[1:]
        return shapes

    def initial(self, generator: torch.Generator) -> Weights:
        """Uniform within one over the root of the number of inputs."""
        return _uniform(self.shapes(), generator)

    def scores(self, weights: Mapping[str, Tensor], columns: Tensor, embeddings: Tensor) -> Tensor:
        """Scores ``(T, N)``.

        Args:
            weights: Of T tasks, each ``(T, ...)``.
            columns: ``(T, V, N, C)``, or ``(1, V, N, C)`` for the same architectures in each task.
            embeddings: ``(T, R)``.
        """
        architectures = self._architectures(weights, columns)
        devices = embeddings[:, None]
        for name in ("device0", "device1"):
            devices = torch.relu(_linear(devices, weights, name))
        # The product with both at once, without writing the device beside every architecture.
        first, bias = weights["head0.weight"], weights["head0.bias"]
        h = self.width
        values = torch.relu(architectures @ first[:, :h] + (devices @ first[:, h:] + bias[:, None]))
        values = torch.relu(_linear(values, weights, "head1"))
        return _linear(values, weights, "head2")[..., 0]

    def _architectures(self, weights: Mapping[str, Tensor], columns: Tensor) -> Tensor:
        """Outputs of the last node ``(T, N, H)``."""
        adjacency = torch.from_numpy(self.graph.adjacency)
        values = columns
        for layer in range(self.graph.layers):
            name = f"architecture{layer}"
            # Sums over neighbours and products with weights commute; the last layer needs one node.
            rows = adjacency if layer < self.graph.layers - 1 else adjacency[-1:]
            tasks, nodes, n, channels = values.shape
            summed = (rows @ values.reshape(tasks, nodes, n * channels)).reshape(tasks, len(rows) * n, channels)
            values = torch.relu(_linear(summed, weights, name))
            values = values.reshape(values.shape[0], len(rows), n, self.width)
        return values[:, 0]


@dataclass(frozen=True)
class Modulator:
    """q(z | h): a diagonal Gaussian over changes to the head's initial weights (section 3.3).

    A layer's weights are multiplied by ``1 + 0.01 z`` along its inputs and its bias moves by
    ``0.01 z``: one number an input and one a layer.
    """

    n_references: int
    head_inputs: int

    @property
    def size(self) -> int:
        """Length of z."""
        return HEAD_LAYERS * (self.head_inputs + 1)

    def initial(self, generator: torch.Generator) -> Weights:
        """Weights of the two layers that read the embedding."""
        r = self.n_references
        shapes = {"z0.weight": (r, r), "z0.bias": (r,), "z1.weight": (r, 2 * self.size), "z1.bias": (2 * self.size,)}
        return _uniform(shapes, generator)

    def posterior(self, weights: Mapping[str, Tensor], embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of z, each ``(T, Z)``."""
        hidden = torch.relu(embeddings @ weights["z0.weight"] + weights["z0.bias"])
        mean, spread = (hidden @ weights["z1.weight"] + weights["z1.bias"]).chunk(2, dim=1)
        return mean, F.softplus(spread)

    def modulated(self, weights: Mapping[str, Tensor], z: Tensor) -> Weights:
        """Weights of T tasks with ``z`` ``(T, Z)`` applied to the head."""
        changed = dict(weights)
        for name, part in zip(MODULATED, z.chunk(HEAD_LAYERS, dim=1), strict=True):
            changed[f"{name}.weight"] = weights[f"{name}.weight"] * (1 + MODULATION_SCALE * part[:, :-1, None])
            changed[f"{name}.bias"] = weights[f"{name}.bias"] + MODULATION_SCALE * part[:, -1:]
        return changed


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Kullback-Leibler divergence from a standard normal ``(T,)``, summed over z."""
    return 0.5 * (mean.square() + deviation.square() - 1).sum(dim=1) - deviation.log().sum(dim=1)


def for_tasks(weights: Mapping[str, Tensor], n: int) -> Weights:
    """Shared weights as those of ``n`` tasks."""
    return {name: weight.expand(n, *weight.shape) for name, weight in weights.items()}


def _linear(values: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return values @ weights[f"{name}.weight"] + weights[f"{name}.bias"][:, None]


def _uniform(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator) -> Weights:
    weights = {}
    for name, shape in shapes.items():
        inputs = shapes[name.replace(".bias", ".weight")][0]
        weights[name] = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(inputs)
    return weights


def as_tensor(values: npt.NDArray[Any]) -> Tensor:
    """A float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
