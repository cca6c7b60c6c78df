"""What quality predictors see of an architecture: its genes, its graph, and columns of the user's own.

Shapes: N architectures, F features, P extra columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .features import choice_names, one_hot

FloatArray = npt.NDArray[np.float64]

SeenOf: TypeAlias = Literal["genotype", "graph", "both"]
ExtraColumns: TypeAlias = Callable[[Genotypes], npt.ArrayLike]
"""Canonical rows ``(N, D)`` to further columns ``(N, P)``, such as zero-cost scores; infinite or NaN
counts as worse than all others."""

SCALING_SAMPLE = 2048


class QualityFeatures:
    """Scaled columns ``(N, F)``: work of the graph, extra columns, then the choice of each decision.

    Work and choices have mean 0 and deviation 1 over the space. Extra columns are replaced by
    their rank among the architectures that a predictor learns from (see :meth:`learn`), since
    zero-cost scores span many orders of magnitude.

    Args:
        space: Where the architectures come from.
        seen: ``genotype``: which choice each decision takes; ``graph``: what the space's ``encode``
            counts besides choices; or ``both``.
        extra: Further columns, asked for whatever a search looks at.
        seed: Of the sample that scales.

    Raises:
        PredictorError: If ``seen`` is none of these, or nothing can be seen.
    """

    def __init__(
        self, space: SearchSpace, *, seen: SeenOf = "both", extra: ExtraColumns | None = None, seed: int = 0
    ) -> None:
        if seen not in get_args(SeenOf):
            raise PredictorError("no such features", field="seen", value=seen, allowed=get_args(SeenOf))
        self._space, self._extra = space, extra
        choices = set(choice_names(space))
        counted = [i for i, name in enumerate(space.feature_names) if name not in choices]
        self._work = np.array(counted if seen != "genotype" else [], dtype=np.int64)
        self._genes = seen != "graph" or (not counted and extra is None)
        sample = self._raw(space.sample(SCALING_SAMPLE, np.random.default_rng(seed)))
        deviation = sample.std(axis=0, dtype=np.float64)
        self._centre = sample.mean(axis=0, dtype=np.float64)
        self._inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)
        self._known: list[FloatArray] = []

    @property
    def leading(self) -> int:
        """Columns of work and extra ones, before those of choices."""
        return len(self._work) + len(self._known)

    def learn(self, genotypes: Genotypes) -> FloatArray:
        """Columns of the architectures ``(N, D)`` that a predictor learns from; ranks of extra
        columns are among these from here on.

        Raises:
            PredictorError: If extra columns are not numbers ``(N, P)``.
        """
        if self._extra is not None:
            self._known = [np.unique(column) for column in self._extra_columns(genotypes).T]
        return self(genotypes)

    def __call__(self, genotypes: Genotypes) -> FloatArray:
        """Scaled columns ``(N, F)``."""
        scaled = (self._raw(genotypes) - self._centre) * self._inverse
        if self._extra is None:
            return np.asarray(scaled)
        ranks = [
            _rank(column, known) for column, known in zip(self._extra_columns(genotypes).T, self._known, strict=True)
        ]
        return np.concatenate([scaled[:, : len(self._work)], np.stack(ranks, 1), scaled[:, len(self._work) :]], axis=1)

    def _raw(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        parts = []
        if len(self._work):
            parts.append(self._space.encode(genotypes)[:, self._work])
        if self._genes:
            parts.append(one_hot(self._space, genotypes))
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(genotypes), 0), dtype=np.float32)

    def _extra_columns(self, genotypes: Genotypes) -> FloatArray:
        count = len(genotypes)
        columns = np.asarray(self._extra(genotypes) if self._extra else np.zeros((count, 0)), dtype=np.float64)
        if columns.ndim != 2 or len(columns) != count:
            raise PredictorError(
                "not a row of extra columns for each architecture",
                field="extra",
                value=f"shape {columns.shape}",
                allowed=f"({count}, P)",
            )
        return np.where(np.isfinite(columns), columns, -np.inf)


def _rank(column: FloatArray, known: FloatArray) -> FloatArray:
    """Place among ``known`` sorted values, from -1.7 to 1.7 (a uniform of deviation 1), linear in between."""
    places = np.linspace(-np.sqrt(3.0), np.sqrt(3.0), len(known)) if len(known) > 1 else np.zeros(1)
    finite = np.isfinite(known)
    if not finite.any():
        return np.zeros(len(column))
    inside = np.interp(column, known[finite], places[finite])
    return np.where(np.isneginf(column), places[0], inside)
