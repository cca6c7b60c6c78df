"""Fisher information of channels.

Shapes: B examples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from .base import DEGENERATE, Minibatch, Proxy
from .layers import any_nonzero, gradients, loss, watched, weighted_layers


class Fisher(Proxy):
    """Sum over the channels that layers put out of ``1/2 mean_n (sum_hw a g)^2``, a the output and g the gradient of
    the loss with respect to it (Theis et al. 2018, 1801.05787; as in Turner et al. 2020, 1906.04113, and 2101.08134).

    The loss is the minibatch's mean, so that an example's gradient is divided by B, as in the published code.
    """

    name: ClassVar[str] = "fisher"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        outputs: list[torch.Tensor] = []
        with watched(weighted_layers(model), lambda _, output: outputs.append(output)):
            value = loss(model, batches[0])
        found = gradients(value, outputs)
        if not any_nonzero(found):
            return DEGENERATE
        return float(sum(_information(a.detach(), g) for a, g in zip(outputs, found, strict=True)))


def _information(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Of one layer, over its channels; both ``(B, C, ...)``."""
    product = (activation * gradient).flatten(2).sum(2) if activation.dim() > 2 else activation * gradient
    return 0.5 * product.square().mean(0).sum()
