"""The three proxies of AZ-NAS that look at a network's blocks (Lee and Ham 2024, 2403.19232, Section 3.2).

Its fourth is the number of operations (:class:`~gnomon.tasks.proxies.sizes.MACs`); the four are combined by the sum of
the logarithms of their ranks, which is how every combination of proxies is ranked here
(:class:`~gnomon.tasks.proxies.ranks.ReferenceRanks`). As in the paper, inputs are Gaussian noise and weights are drawn
anew by fan-in.

Shapes: B examples, C channels, H height, W width, L blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .base import DEGENERATE, Minibatch, Proxy
from .blocks import block_outputs, initialise_by_fan_in

FloatArray = npt.NDArray[np.float64]


class Expressivity(Proxy):
    """Sum over blocks of the entropy of the normalised eigenvalues of their features' covariance (Equation 2): how
    evenly features fill the space of channels."""

    name: ClassVar[str] = "az_expressivity"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        return float(_entropies(model, batches[0]).sum())


class Progressivity(Proxy):
    """Least growth of that entropy from a block to the next (Equation 3)."""

    name: ClassVar[str] = "az_progressivity"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        return float(np.diff(_entropies(model, batches[0])).min())


class Trainability(Proxy):
    """Mean over blocks of ``2 - s - 1/s``, s the largest singular value of an estimate of the block's Jacobian between
    channels from Rademacher noise (Equations 4 to 6): 0 where gradients neither grow nor shrink.

    A block whose maps are smaller than those it gets has each window of its input's gradient taken as channels.
    """

    name: ClassVar[str] = "az_trainability"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        initialise_by_fan_in(model)
        maps = block_outputs(model, _noise(batches[0]))
        scores = [_block_trainability(before, after) for before, after in pairwise(maps)]
        return float(np.mean(scores))


def _noise(batch: Minibatch) -> torch.Tensor:
    """Gaussian inputs of the minibatch's shape; with a gradient, so that the first block has one to pass on."""
    return torch.randn_like(batch.inputs).requires_grad_(True)


def _entropies(model: nn.Module, batch: Minibatch) -> FloatArray:
    """Of each block ``(L,)``, in nats."""
    initialise_by_fan_in(model)
    with torch.no_grad():
        maps = block_outputs(model, _noise(batch).detach())
    return np.array([eigenvalue_entropy(features) for features in maps])


def eigenvalue_entropy(features: torch.Tensor) -> float:
    """Entropy in nats of the normalised eigenvalues of the covariance of ``(B, C, H, W)`` between channels; 0 of
    features that do not vary, NaN if they are not finite."""
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double()
    if not bool(torch.isfinite(rows).all()):
        return float("nan")
    rows = rows - rows.mean(0)
    eigenvalues = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0)
    total = eigenvalues.sum()
    if not total > 0:
        return 0.0
    share = (eigenvalues / total).clamp(min=1e-12)
    return float(-(share * share.log()).sum())


def _block_trainability(before: torch.Tensor, after: torch.Tensor) -> float:
    """Of one block; -inf if it passes nothing back, or passes back just what came (an identity)."""
    if not (before.requires_grad and after.requires_grad):
        return DEGENERATE
    noise = torch.bernoulli(torch.full_like(after, 0.5)) * 2 - 1
    (arrived,) = torch.autograd.grad(after, before, noise, retain_graph=True, allow_unused=True)
    if arrived is None or (arrived.shape == noise.shape and torch.equal(arrived, noise)):
        return DEGENERATE
    largest = channel_norm(arrived, noise)
    return 2.0 - largest - 1.0 / largest if largest > 0 else DEGENERATE


def channel_norm(arrived: torch.Tensor, sent: torch.Tensor) -> float:
    """Largest singular value of the mean over examples and places of ``arrived sent^T``.

    Args:
        arrived: Gradient at a block's input ``(B, C, H, W)``.
        sent: Noise at its output ``(B, C', H', W')``, smaller by a whole factor or not at all.
    """
    stride = arrived.shape[2] // sent.shape[2]
    if stride > 1:
        height, width = sent.shape[2] * stride, sent.shape[3] * stride
        arrived = nn.functional.pixel_unshuffle(arrived[:, :, :height, :width], stride)
    if arrived.shape[2:] != sent.shape[2:]:
        arrived = nn.functional.adaptive_avg_pool2d(arrived, (sent.shape[2], sent.shape[3]))
    places = sent.shape[0] * sent.shape[2] * sent.shape[3]
    matrix = torch.einsum("bchw,bdhw->cd", arrived.double(), sent.double()) / places
    return float(torch.linalg.matrix_norm(matrix, 2)) if bool(torch.isfinite(matrix).all()) else float("nan")
