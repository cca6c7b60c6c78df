"""The contract of a relaxed model: all networks of a space as one mixture, of which each weight has a gradient.

Shapes: D decisions, G groups of decisions, K_g combinations of choices in group g.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from .base import SearchSpace


class RelaxedModel(nn.Module, ABC):
    """Mixed operations (DARTS, 1806.09055, Equation 2): each group of decisions is a weighted sum of what its choices
    compute. With one weight of 1 in each group it is exactly one network of the space.

    A group is what must be mixed together, because its choices are one piece of work (operation and kernel of a
    layer). Its weights ("gates") list all combinations of its decisions' choices, the first decision being the most
    significant digit. What has a gate of exactly 0 is not run, so that sampled gates cost what was sampled.

    Args:
        space: Whose networks these are.
        groups: Columns of the genotype; each column is in exactly one group.
    """

    def __init__(self, space: SearchSpace, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.space = space
        self.groups = tuple(tuple(group) for group in groups)
        self.radices = tuple(
            tuple(int(space.algebra.cardinalities[column]) for column in group) for group in self.groups
        )
        self.gates: tuple[torch.Tensor, ...] = ()
        self.mix([torch.full((size,), 1.0 / size) for size in self.sizes])

    @property
    def sizes(self) -> tuple[int, ...]:
        """K_g of each group."""
        return tuple(int(torch.Size(radices).numel()) for radices in self.radices)

    def mix(self, gates: Sequence[torch.Tensor]) -> None:
        """Sets the weights of the next forward passes: one tensor ``(K_g,)`` a group, summing to 1."""
        self.gates = tuple(gates)

    def corner(self, config: Mapping[str, Any]) -> list[torch.Tensor]:
        """The gates that are exactly the network of a config."""
        row = self.space.genotype(config)
        gates = []
        for columns, radices, size in zip(self.groups, self.radices, self.sizes, strict=True):
            code = 0
            for column, radix in zip(columns, radices, strict=True):
                code = code * radix + int(row[column])
            gates.append(nn.functional.one_hot(torch.tensor(code), size).float())
        return gates

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(batch, channels, height, width)`` to logits ``(batch, classes)`` under the gates."""

    @abstractmethod
    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        """A plain module as the space's ``build`` makes it, with copies of its part of the weights: in evaluation mode
        its outputs equal this model's at :meth:`corner`."""


def present(gate: torch.Tensor) -> list[int]:
    """Positions of the gates that are not exactly 0."""
    return [i for i, value in enumerate(gate.tolist()) if value != 0.0]


def weighted(gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``gate * value``, without the product where the gate is a constant 1."""
    return value if not gate.requires_grad and float(gate) == 1.0 else gate * value
