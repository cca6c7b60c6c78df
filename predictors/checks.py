"""Checks of what users hand to predictors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..records.pool import DevicePool
from ..search_spaces import Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]


def checked_measurements(
    space: SearchSpace, genotypes: Genotypes, latencies_ms: FloatArray, minimum: int
) -> tuple[Genotypes, FloatArray]:
    """Canonical rows and latencies in an order that depends on the rows only, so that a model
    does not depend on the order in which they were measured.

    Raises:
        PredictorError: If there are too few distinct ones, lengths differ, or a latency is not
            positive and finite.
        SpaceError: If the rows are not of this space.
    """
    genotypes = space.canonical(space.algebra.validate(genotypes))
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    if latencies.shape != (len(genotypes),):
        raise PredictorError(
            "as many latencies as architectures are needed",
            field="latencies_ms",
            value=f"shape {latencies.shape}",
            allowed=f"({len(genotypes)},)",
        )
    bad = ~(np.isfinite(latencies) & (latencies > 0))
    if bad.any():
        raise PredictorError(
            "not a latency", field="latencies_ms", value=float(latencies[bad][0]), allowed="positive and finite, in ms"
        )
    n_distinct = len(np.unique(space.algebra.hashes(genotypes)))
    if n_distinct < minimum:
        raise PredictorError(
            "too few measured architectures",
            field="latencies_ms",
            value=n_distinct,
            allowed=f"at least {minimum} distinct ones",
        )
    order = np.lexsort((latencies, *genotypes.T[::-1]))
    return genotypes[order], latencies[order]


def pool_genotypes(space: SearchSpace, pool: DevicePool) -> Genotypes:
    """The pool's architectures ``(N, D)``.

    Raises:
        PredictorError: If the pool is feature-only, of another space, or holds no setting.
    """
    if pool.space is None or pool.genotypes is None:
        raise PredictorError(
            "this pool lists features, not architectures", field="pool", value=pool.source,
            hint="Fit its features instead.",
        )  # fmt: skip
    if pool.space.decisions != space.decisions:
        raise PredictorError("the pool is of another space", field="pool", value=pool.space.spec(), allowed=space.name)
    if not pool.settings or not len(pool):
        raise PredictorError("the pool is empty", field="pool", value=pool.source)
    return pool.genotypes
