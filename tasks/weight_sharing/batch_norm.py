"""Statistics of batch norm for the network that is about to be evaluated.

A supernet keeps one set of running statistics, of whatever networks were trained last; a network evaluated with them
answers at random. They are estimated anew from training examples (Once-for-All, 1908.09791; BigNAS, 2003.11142).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn

from ..training_data import Batch, TrainingData

CALIBRATION_EPOCH = 1_000_000
"""The epoch whose batches statistics are estimated from: one that no training reaches."""

BatchNorm = nn.modules.batchnorm._BatchNorm


def calibration_batches(data: TrainingData, n: int, seed: int) -> list[Batch]:
    """``n`` batches of the train split (fewer if an epoch has fewer), the same for the same seed."""
    return list(islice(data.batches(seed, CALIBRATION_EPOCH), n))


def has_batch_norm(model: nn.Module) -> bool:
    """Whether anything is to be estimated."""
    return any(isinstance(module, BatchNorm) and module.track_running_stats for module in model.modules())


@contextmanager
def recalibrated(model: nn.Module, data: TrainingData, batches: Sequence[Batch]) -> Iterator[None]:
    """Inside, ``model`` is in evaluation mode with statistics that are the mean over ``batches``, forward passes only,
    without dropout; outside, mode, statistics and momentum are as they were.

    A model without batch norm is only put in evaluation mode.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    modes = {module: module.training for module in model.modules()}
    before = [(norm.momentum, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    try:
        model.eval()
        if norms:
            _estimate(model, norms, data, batches)
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for buffer, old in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(old)
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def _estimate(model: nn.Module, norms: Sequence[BatchNorm], data: TrainingData, batches: Sequence[Batch]) -> None:
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative mean
        norm.training = True
    for batch in batches:
        data.logits(model, batch)
    for norm in norms:
        norm.training = False
