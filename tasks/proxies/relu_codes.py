"""NASWOT: how differently a network's units switch for the examples of a minibatch.

Shapes: B examples, U units of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...errors import TaskError
from .base import DEGENERATE, Minibatch, Proxy
from .layers import watched, weighted_layers

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus,
)  # fmt: skip
"""Modules whose two sides of zero make the codes."""


class NWOT(Proxy):
    """``log |det K|`` of the kernel of binary codes, ``K = sum_layers X X^T + (1 - X)(1 - X)^T`` with X the signs of
    what enters the activations (Mellor et al. 2021, 2006.04647, Equation 2: B times their Hamming similarity)."""

    name: ClassVar[str] = "nwot"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        modules = [module for module in model.modules() if isinstance(module, ACTIVATIONS)]
        if not modules:
            raise TaskError(
                "the network has no activation modules whose codes could be compared",
                field="proxy",
                value=self.name,
                allowed="networks with torch.nn activations, or nwot_preactivation",
            )
        return _score(model, modules, batches[0], entering=True)


class NWOTPreactivation(Proxy):
    """:class:`NWOT` with the signs of what convolutions and linear layers put out, before batch norm (YOLOBench,
    2307.13901, Section 4.3): it needs no activation modules."""

    name: ClassVar[str] = "nwot_preactivation"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        return _score(model, weighted_layers(model), batches[0], entering=False)


def _score(model: nn.Module, modules: Sequence[nn.Module], batch: Minibatch, *, entering: bool) -> float:
    count = len(batch.inputs)
    kernel: npt.NDArray[np.float64] = np.zeros((count, count))

    def add(_: nn.Module, values: torch.Tensor) -> None:
        codes = (values.detach().reshape(count, -1) > 0).float()
        kernel[...] += _agreement(codes).double().numpy()

    with torch.no_grad(), watched(modules, add, entering=entering):
        model(batch.inputs)
    return log_determinant(kernel)


def _agreement(codes: torch.Tensor) -> torch.Tensor:
    """Units on which two examples agree ``(B, B)``, from codes ``(B, U)`` of 0 and 1.

    With s = 2x - 1 it is (U + s s') / 2: one product in place of two.
    """
    signs = 2 * codes - 1
    return (signs.shape[1] + signs @ signs.T) / 2


def log_determinant(kernel: npt.NDArray[np.float64]) -> float:
    """``log |det K|`` of ``(B, B)``; -inf if two examples have the same codes."""
    sign, value = np.linalg.slogdet(kernel)
    return float(value) if sign != 0 and np.linalg.matrix_rank(kernel) == len(kernel) else DEGENERATE
