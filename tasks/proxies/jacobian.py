"""Correlation of the Jacobians of a minibatch's examples.

Shapes: B examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import nn

from .base import DEGENERATE, Minibatch, Proxy
from .layers import gradients

OFFSET = 1e-5


class JacobCov(Proxy):
    """How little the examples' Jacobians are correlated: ``-sum(log(v + k) + 1 / (v + k))`` over the eigenvalues v of
    the correlation matrix of ``d(sum of logits)/dx`` (Mellor et al. 2020, 2006.04647v1, Equation 5; k = 1e-5)."""

    name: ClassVar[str] = "jacob_cov"

    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        inputs = batches[0].inputs.clone().requires_grad_(True)
        (found,) = gradients(model(inputs).sum(), [inputs])
        return eigenvalue_score(found.flatten(1).double().numpy())


def eigenvalue_score(rows: npt.NDArray[np.float64]) -> float:
    """The score of Jacobians ``(B, inputs)``; -inf if one of them is constant or not finite."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        return DEGENERATE
    unit = centred / norms
    eigenvalues = np.maximum(np.linalg.eigvalsh(unit @ unit.T), 0.0) + OFFSET
    return float(-(np.log(eigenvalues) + 1.0 / eigenvalues).sum())
