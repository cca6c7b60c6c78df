"""What linear latency models see of an architecture, and how much they expect of each column.

Shapes: N architectures, F features, R coordinates of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..search_spaces import Costs, Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]

SAMPLE = 2048
SAMPLE_SEED = 0x5EED
LINE_COSTS = ("macs", "cio", "parameters")
LINEAR_TOLERANCE = 0.02
"""A cost counts as a linear function of the features if no sampled architecture is off by more:
such a line serves the inner loop from look-up tables."""


@dataclass(frozen=True)
class Block:
    """A group of features with one prior variance.

    Args:
        name: ``work`` (what the network does), ``executions`` (what of it a runtime may execute),
            ``tied`` (choices, wherever they are made) or ``choices`` (each choice at its place).
        projection: ``(F, R)``: the block's coordinates are ``(features - mean) @ projection``,
            scaled so that their mean square norm over the space is 1.
    """

    name: str
    projection: FloatArray


class Basis:
    """Columns of features, what they are on average, and their groups.

    Args:
        features: Of many architectures ``(N, F)``, not centred.
        names: ``(F,)``.
        groups: Sums of columns ``(F, R)`` by name; each becomes a block with a prior variance.
    """

    def __init__(self, features: FloatArray, names: Sequence[str], groups: Mapping[str, FloatArray]) -> None:
        self.names = tuple(names)
        self.mean: FloatArray = features.mean(axis=0)
        centred = features - self.mean
        self.moment: FloatArray = centred.T @ centred / len(centred)
        self.groups = dict(groups)
        self.blocks = tuple(self._blocks())

    @cached_property
    def moment_root(self) -> FloatArray:
        """R with ``R R^T`` the second moment of centred features and a constant 1 ``(F + 1, F + 1)``."""
        size = len(self.mean)
        values, vectors = np.linalg.eigh(self.moment)
        root = np.zeros((size + 1, size + 1))
        root[:-1, :-1] = vectors * np.sqrt(np.maximum(values, 0.0))
        root[-1, -1] = 1.0
        return root

    @classmethod
    def of_work(cls, features: FloatArray, names: Sequence[str]) -> Basis:
        """All columns are work: for tables that list features in place of architectures."""
        return cls(features, names, {"work": np.eye(len(names))})

    def _blocks(self) -> Iterator[Block]:
        """Groups with their coordinates scaled; those without variance are left out."""
        for name, group in self.groups.items():
            projection = group
            if name in ("work", "executions"):
                mean = self.mean @ group
                projection = group / np.where(mean > 0, mean, 1.0)
            spread = float(np.trace(projection.T @ self.moment @ projection))
            if spread > 1e-12:
                yield Block(name, projection / np.sqrt(spread))

    def coordinates(self, features: FloatArray) -> list[FloatArray]:
        """Coordinates ``(N, R)`` of each block."""
        centred = features - self.mean
        return [centred @ block.projection for block in self.blocks]


class FeatureBasis(Basis):
    """Features of a space. Depends on the space alone.

    They are its ``encode``; MACs, CIO and parameters where these are not already linear in it; and
    which choice each decision takes, unless ``encode`` says so or is a sum of look-up tables,
    which one matrix of choices would slow down.

    Columns named ``decision=choice`` are choices; all others are work and are divided by their
    mean over the space, so that 1 is an average network.

    Args:
        space: Any.
        executions: Whether to add what runs under each of the space's executions, as columns
            ``execution/kind``.
    """

    def __init__(self, space: SearchSpace, *, executions: bool = False) -> None:
        self.space = space
        sample = space.sample(SAMPLE, np.random.default_rng(SAMPLE_SEED))
        encoded, costs = space.encode(sample).astype(np.float64), cost_columns(space.costs(sample))
        self._cost_scale = np.maximum(costs.mean(axis=0), 1e-12)
        self.executions = dict(space.executions) if executions else {}
        self._with_costs = not is_linear(encoded, costs)
        self.additive = None if self._with_costs or self.executions else space.additive_encoding()
        self._encoded = np.arange(encoded.shape[1])
        if self.executions:  # counts that `encode` gives as well are not needed twice
            counts = space.execution_counts(sample).reshape(len(sample), -1)
            known = (encoded[:, :, None] == counts[:, None]).all(axis=0).any(axis=1)
            self._encoded = np.flatnonzero(~known)
        self._with_choices = self.additive is None and not set(choice_names(space)) <= set(space.feature_names)
        names = (
            *(space.feature_names[column] for column in self._encoded),
            *(LINE_COSTS if self._with_costs else ()),
            *(f"{execution}/{kind}" for execution, kinds in self.executions.items() for kind in kinds),
            *(choice_names(space) if self._with_choices else ()),
        )
        super().__init__(self.features(sample), names, _groups(space, list(names)))

    def features(self, genotypes: Genotypes) -> FloatArray:
        """Columns ``(N, F)``, not centred."""
        encoded = self.space.encode(genotypes)
        parts = [(encoded[:, self._encoded] if self.executions else encoded).astype(np.float64)]
        if self._with_costs:
            parts.append(cost_columns(self.space.costs(genotypes)) / self._cost_scale)
        if self.executions:
            parts.append(self.space.execution_counts(genotypes).reshape(len(genotypes), -1).astype(np.float64))
        if self._with_choices:
            parts.append(one_hot(self.space, genotypes).astype(np.float64))
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    @cached_property
    def units(self) -> FloatArray:
        """What 1 stands for in each column ``(F,)``, see :attr:`SearchSpace.feature_units`."""
        units = np.ones(len(self.names))
        units[: len(self._encoded)] = self.space.feature_units[self._encoded]
        if self._with_costs:
            units[len(self._encoded) : len(self._encoded) + len(LINE_COSTS)] = self._cost_scale
        return units


def cost_columns(costs: Costs) -> FloatArray:
    """MACs, CIO and parameters ``(N, 3)``."""
    columns = costs.columns()
    return np.stack([columns[name] for name in LINE_COSTS], axis=1)


def cost_weights(features: FloatArray, costs: FloatArray) -> FloatArray:
    """Weights ``(1 + F, 3)`` with which a constant and the features come nearest to the costs."""
    design = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    return np.asarray(np.linalg.lstsq(design, costs, rcond=1e-10)[0])


def is_linear(features: FloatArray, costs: FloatArray) -> bool:
    """Whether features give the costs to within ``LINEAR_TOLERANCE`` everywhere."""
    weights = cost_weights(features, costs)
    error = np.abs(features @ weights[1:] + weights[0] - costs)
    return bool((error <= LINEAR_TOLERANCE * np.abs(costs)).all())


def _groups(space: SearchSpace, names: list[str]) -> dict[str, FloatArray]:
    """Sums of columns ``(F, R)`` by block: each work column, each choice in all decisions that
    offer the same choices (``tied``), each choice of each decision."""
    known = {
        f"{decision.name}={choice}": (decision.choices, index)
        for decision in space.decisions
        for index, choice in enumerate(decision.choices)
    }
    columns = np.eye(len(names))
    is_choice = np.array([name in known for name in names], dtype=bool)
    kinds: dict[tuple[Any, ...], FloatArray] = {}
    for column, name in enumerate(names):
        if name in known:
            kinds[known[name]] = kinds.get(known[name], np.zeros(len(names))) + columns[column]
    is_execution = np.array(["/" in name and name not in known for name in names], dtype=bool)
    groups = {"work": columns[:, ~is_choice & ~is_execution], "executions": columns[:, is_execution]}
    if 0 < len(kinds) < int(is_choice.sum()):
        groups["tied"] = np.stack(list(kinds.values()), axis=1)
    groups["choices"] = columns[:, is_choice]
    return {name: group for name, group in groups.items() if group.shape[1]}


def choice_names(space: SearchSpace) -> list[str]:
    """Names of the columns of :func:`one_hot`."""
    return [f"{decision.name}={choice}" for decision in space.decisions for choice in decision.choices]


def one_hot(space: SearchSpace, genotypes: Genotypes) -> npt.NDArray[np.float32]:
    """Which choice each active decision takes ``(N, C)``, whatever the space's own encoding."""
    return SearchSpace.encode(space, genotypes)
