"""What the baselines see of an architecture.

Shapes: N architectures, F columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .features import FeatureBasis, one_hot

FloatArray = npt.NDArray[np.float64]

Columns: TypeAlias = Callable[[Genotypes], FloatArray]
"""Genotypes ``(N, D)`` to columns ``(N, F)``."""


def columns_of(space: SearchSpace, kind: str) -> Columns:
    """The columns of one kind for a space; kinds are the keys of :data:`KINDS`.

    Raises:
        PredictorError: If there is no such kind.
    """
    if kind not in KINDS:
        raise PredictorError("no such columns", field="columns", value=kind, allowed=sorted(KINDS))
    return KINDS[kind](space)


def _cost(name: str, space: SearchSpace) -> Columns:
    sample = space.sample(256, np.random.default_rng(0))
    mean = float(space.costs(sample).columns()[name].mean())

    def columns(genotypes: Genotypes) -> FloatArray:
        return np.asarray(space.costs(genotypes).columns()[name], dtype=np.float64)[:, None] / max(mean, 1e-12)

    return columns


def _choices(space: SearchSpace) -> Columns:
    return lambda genotypes: one_hot(space, genotypes).astype(np.float64)


def _operations(space: SearchSpace) -> Columns:
    """How often each choice is made, over all decisions that offer the same choices."""
    kinds: dict[tuple[object, ...], int] = {}
    owner = [
        kinds.setdefault((decision.choices, choice), len(kinds))
        for decision in space.decisions
        for choice in range(len(decision.choices))
    ]
    summed = np.zeros((len(owner), len(kinds)))
    summed[np.arange(len(owner)), owner] = 1.0
    return lambda genotypes: one_hot(space, genotypes).astype(np.float64) @ summed


def _features(space: SearchSpace) -> Columns:
    return FeatureBasis(space).features


KINDS: Mapping[str, Callable[[SearchSpace], Columns]] = MappingProxyType(
    {
        "parameters": partial(_cost, "parameters"),
        "macs": partial(_cost, "macs"),
        "cio": partial(_cost, "cio"),
        "choices": _choices,
        "operations": _operations,
        "features": _features,
    }
)
"""A cost relative to its mean over the space; which choice each decision takes; how often each
operation is chosen; the space's features, as the Bayesian linear predictor sees them."""
