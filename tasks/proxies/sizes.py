"""What every proxy must be compared with: how large the network is. No data, no gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from .base import Minibatch, Proxy
from .layers import watched, weighted_layers, weights


class Parameters(Proxy):
    """Trainable parameters."""

    name: ClassVar[str] = "parameters"
    needs_signal: ClassVar[bool] = False

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        return float(sum(p.numel() for p in model.parameters() if p.requires_grad))


class MACs(Proxy):
    """Multiply-accumulates of convolutions and linear layers for one example."""

    name: ClassVar[str] = "macs"
    needs_signal: ClassVar[bool] = False

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        inputs = batches[0].inputs[:2]  # two, since batch norm in training wants more than one value a channel
        total = 0.0

        def count(layer: nn.Module, output: torch.Tensor) -> None:
            nonlocal total
            weight = layer.get_parameter("weight")
            total += output.numel() / len(inputs) * weight[0].numel()

        with torch.no_grad(), watched(weighted_layers(model), count):
            model(inputs)
        return total


class L2Norm(Proxy):
    """Sum over layers of the Euclidean norm of the weights (2101.08134)."""

    name: ClassVar[str] = "l2_norm"
    needs_signal: ClassVar[bool] = False

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        return float(sum(weight.detach().norm() for weight in weights(model)))
