"""Proxies from the gradients of the loss with respect to the weights.

Shapes: one minibatch of B examples; sums run over the weights of convolutions and linear layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from .base import DEGENERATE, Minibatch, Proxy
from .layers import any_nonzero, gradients, loss, weights


class GradNorm(Proxy):
    """Sum over layers of the Euclidean norm of the gradient (Abdelfattah et al. 2021, 2101.08134, Section 3.2)."""

    name: ClassVar[str] = "grad_norm"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        found = gradients(loss(model, batches[0]), weights(model))
        if not any_nonzero(found):
            return DEGENERATE
        return float(torch.stack([grad.norm() for grad in found]).sum())


class Snip(Proxy):
    """Sum of ``|w dL/dw|``: how much the loss changes when a weight is removed (Lee et al. 2019, 1810.02340,
    Equation 3, summed as in 2101.08134). The gradient of SNIP's mask is ``w dL/dw``."""

    name: ClassVar[str] = "snip"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        tensors = weights(model)
        found = gradients(loss(model, batches[0]), tensors)
        if not any_nonzero(found):
            return DEGENERATE
        return float(sum((w.detach() * g).abs().sum() for w, g in zip(tensors, found, strict=True)))


class Plain(Proxy):
    """Sum of ``w dL/dw`` with its sign (Mozer and Smolensky 1989, as in 2101.08134)."""

    name: ClassVar[str] = "plain"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        tensors = weights(model)
        found = gradients(loss(model, batches[0]), tensors)
        if not any_nonzero(found):
            return DEGENERATE
        return float(sum((w.detach() * g).sum() for w, g in zip(tensors, found, strict=True)))


class Grasp(Proxy):
    """Sum of ``-(H g) w``: what removing weights does to the flow of gradients (Wang et al. 2020, 2002.07376,
    Equation 8, summed as in 2101.08134); H is the Hessian and g the gradient of the loss on one minibatch."""

    name: ClassVar[str] = "grasp"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        tensors = weights(model)
        first = gradients(loss(model, batches[0]), tensors, create_graph=True)
        if not any_nonzero(first):
            return DEGENERATE
        # d(g . stop(g))/dw = H g, without ever forming H.
        product = torch.stack([(grad * grad.detach()).sum() for grad in first]).sum()
        curved = gradients(product, tensors)
        return -float(sum((w.detach() * h).sum() for w, h in zip(tensors, curved, strict=True)))
