"""Predicted values as functions of probabilities, with gradients: what a differentiable search pays for latency.

For a distribution that draws each decision by itself, the value is the expected prediction of the networks drawn. It
is linear in each decision's probabilities, equals the prediction at the corners, and exists for every predictor,
differentiable or not, and for every metric. Nothing is fitted anew, so nothing can be wrong between the corners.

Shapes: N architectures, D decisions, K_d choices of decision d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from ..search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from .base import LatencyModel
from .linear_model import LinearLatencyModel

if TYPE_CHECKING:
    import torch

    from ..search_spaces.soft import Probabilities, SoftTables

FloatArray = npt.NDArray[np.float64]
Values: TypeAlias = Callable[[Genotypes], FloatArray]
"""Canonical rows ``(N, D)`` to predicted values ``(N,)``."""

DRAWS = 32
"""Networks drawn for an estimate; each is predicted with every choice of every decision."""


class ExpectedValue(ABC):
    """The mean of a predicted value where each decision is drawn by itself."""

    @abstractmethod
    def expected(self, probabilities: Probabilities, rng: np.random.Generator) -> torch.Tensor:
        """A scalar with gradients.

        Args:
            probabilities: A tensor ``(K_d,)`` for each decision.
            rng: Of the draws, where there are any.
        """


class TabledValue(ExpectedValue):
    """Exact: the value is a sum of table entries."""

    def __init__(self, tables: SoftTables) -> None:
        self._tables = tables

    def expected(self, probabilities: Probabilities, rng: np.random.Generator) -> torch.Tensor:
        return self._tables.expected(probabilities)[0]


class SampledValue(ExpectedValue):
    """An unbiased estimate of value and gradient: ``draws`` networks, each with every choice of each decision in turn.

    The gradient to the probability of a choice is the mean value of the networks with that choice, so that its noise
    is that of the other decisions only.

    Args:
        space: Of the rows.
        values: Predicts them, vectorised.
        draws: Networks drawn.
    """

    def __init__(self, space: SearchSpace, values: Values, draws: int = DRAWS) -> None:
        self.space, self.values, self.draws = space, values, draws

    def expected(self, probabilities: Probabilities, rng: np.random.Generator) -> torch.Tensor:
        import torch

        plain = [np.asarray(p.detach().numpy(), dtype=np.float64) for p in probabilities]
        rows = np.stack([rng.choice(len(p), size=self.draws, p=p / p.sum()) for p in plain], axis=1).astype(GENE_DTYPE)
        variants = []
        for column, p in enumerate(plain):
            for choice in range(len(p)):
                variant = rows.copy()
                variant[:, column] = choice
                variants.append(variant)
        predicted = self.values(self.space.canonical(np.concatenate(variants))).reshape(len(variants), self.draws)
        means = np.split(predicted.mean(axis=1), np.cumsum([len(p) for p in plain])[:-1])
        level = float(np.mean([own @ p for own, p in zip(means, plain, strict=True)]))
        total = torch.tensor(level, dtype=torch.float32)
        for own, chances in zip(means, probabilities, strict=True):
            total = total + (chances - chances.detach()) @ torch.from_numpy(own.astype(np.float32))
        return total


def expected_value(space: SearchSpace, values: Values) -> ExpectedValue:
    """The expectation of any vectorised prediction: exact for a space that is small enough to list, else sampled."""
    from ..search_spaces.soft import SoftTables, is_small, whole_space

    if not is_small(space):
        return SampledValue(space, values)
    table = np.asarray(values(whole_space(space)), dtype=np.float64)[:, None]
    return TabledValue(SoftTables(space, [range(len(space.decisions))], [table], np.zeros(1)))


def expected_latency(space: SearchSpace, model: LatencyModel) -> ExpectedValue:
    """The expectation of a latency model in ms: exact where it is linear in a sum of tables, or the space is small."""
    from ..search_spaces.soft import SoftTables

    if isinstance(model, LinearLatencyModel) and model.basis.additive is not None:
        weights = model.parameters.weights
        additive = model.basis.additive
        tables = [table.astype(np.float64) @ weights[:, None] for table in additive.tables]
        bias = additive.bias.astype(np.float64) @ weights + model.parameters.bias
        return TabledValue(SoftTables(space, additive.groups, tables, np.atleast_1d(bias)))
    return expected_value(space, model.predict_mean)
