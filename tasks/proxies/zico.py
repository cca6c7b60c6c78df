"""ZiCo: gradients that are large and the same over minibatches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from .base import DEGENERATE, Minibatch, Proxy
from .layers import gradients, loss, weights


class ZiCo(Proxy):
    """Sum over layers of ``log(sum_w mean_b |g| / std_b g)``, g the gradient of a weight on minibatch b (Li et al.
    2023, 2301.11300, Equation 13). Weights whose gradient does not vary are left out, and layers without others."""

    name: ClassVar[str] = "zico"
    batches: ClassVar[int] = 2

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        tensors = weights(model)
        runs = [gradients(loss(model, batch), tensors) for batch in batches]
        total, layers = 0.0, 0
        for found in zip(*runs, strict=True):
            stacked = torch.stack(found)
            deviation = stacked.std(0, correction=0)
            varies = deviation > 0
            ratio = float((stacked.abs().mean(0)[varies] / deviation[varies]).sum())
            if ratio > 0:
                total, layers = total + math.log(ratio), layers + 1
        return total if layers else DEGENERATE
