"""What relaxed models of cells share: an edge that is a mixture of operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .relaxed import present, weighted


class MixedOperation(nn.Module):
    """``sum_i gates[i] * operations[i](x)`` over the operations that are present (DARTS, 1806.09055, Equation 2).

    Args:
        operations: By choice; None stands for ``none``, which brings nothing.
    """

    def __init__(self, operations: Sequence[nn.Module | None]) -> None:
        super().__init__()
        self.operations = nn.ModuleDict({str(i): op for i, op in enumerate(operations) if op is not None})

    def forward(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor | None:
        """The sum, or None where only ``none`` is present."""
        total: torch.Tensor | None = None
        for index in present(gates):
            name = str(index)
            if name in self.operations:
                term = weighted(gates[index], self.operations[name](x))
                total = term if total is None else total + term
        return total

    def operation(self, index: int) -> nn.Module:
        """The module of a choice that is not ``none``."""
        return self.operations[str(index)]


def added(total: torch.Tensor | None, term: torch.Tensor | None) -> torch.Tensor | None:
    """Their sum, where None is nothing."""
    if total is None or term is None:
        return term if total is None else total
    return total + term
