"""Synaptic flow: what a network of absolute weights passes on, without data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from .base import DEGENERATE, Minibatch, Proxy
from .layers import any_nonzero, gradients, weights

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SynFlow(Proxy):
    """Sum of ``|w dR/dw|`` where R is the sum of the outputs for an input of ones and all parameters are replaced by
    their absolute values (Tanaka et al. 2020, 2006.05467, Equation 2, summed as in 2101.08134).

    In double precision, since products over many layers overflow single precision, and without batch norm, which
    would undo what is measured.
    """

    name: ClassVar[str] = "synflow"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        model.double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        for module in model.modules():
            if isinstance(module, _NORMS):
                module.forward = _unchanged  # type: ignore[method-assign, assignment]
        tensors = weights(model)
        ones = torch.ones((1, *batches[0].inputs.shape[1:]), dtype=torch.float64)
        found = gradients(model(ones).sum(), tensors)
        if not any_nonzero(found):
            return DEGENERATE
        return float(sum((w.detach() * g).abs().sum() for w, g in zip(tensors, found, strict=True)))


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x
