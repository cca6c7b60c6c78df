"""What a network learns from another one's answers.

Shapes: N predictions, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional


def soft_loss(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence (nats, a scalar) of the student's distribution from the teacher's, both of
    logits ``(N, K)``; no gradient flows into the teacher."""
    target = functional.log_softmax(teacher.detach(), dim=-1)
    return functional.kl_div(functional.log_softmax(logits, dim=-1), target, reduction="batchmean", log_target=True)


@contextmanager
def dropout(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Dropout layers off inside, unless ``enabled``; as they were outside."""
    layers = [] if enabled else [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode
