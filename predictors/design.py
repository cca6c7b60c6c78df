"""Which architectures to measure: optimal design for a Bayesian linear model.

Shapes: N candidates, n chosen, R prior-scaled features, D decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from ..search_spaces.variation import distinct

FloatArray = npt.NDArray[np.float64]
Criterion: TypeAlias = Literal["a", "d"]

CANDIDATES = 4000
CORNERS = 16
CORNER_ROUNDS = 24


def optimal_design(
    features: FloatArray,
    n: int,
    *,
    noise_variance: float | FloatArray,
    always: npt.NDArray[np.int64] | None = None,
    criterion: Criterion = "a",
) -> npt.NDArray[np.int64]:
    """Greedily chooses the rows whose measurement leaves the least uncertainty.

    The model is ``y = x . w + noise`` with ``w ~ N(0, I)``: scale features by the prior deviation
    of their weights. A-optimal rows minimise the mean predictive variance over all candidates,
    D-optimal ones the determinant of the posterior covariance. Each step scores every candidate by
    a rank-one update of the posterior (Chaloner and Verdinelli 1995, section 2), and the first of
    equals wins, so the choice is deterministic.

    Args:
        features: Of the candidates ``(N, R)``.
        n: Rows to choose in all.
        noise_variance: Of a measurement, one for all or ``(N,)``.
        always: Rows that are chosen in any case, first and in this order.
        criterion: ``"a"`` or ``"d"``.

    Returns:
        Distinct row numbers ``(n,)`` in order of choice.

    Raises:
        PredictorError: If there are fewer than n candidates, or the criterion is unknown.
    """
    if criterion not in ("a", "d"):
        raise PredictorError("no such design", field="criterion", value=criterion, allowed=("a", "d"))
    always = np.zeros(0, dtype=np.int64) if always is None else np.asarray(always, dtype=np.int64)
    if not len(always) <= n <= len(features):
        raise PredictorError("cannot choose that many", field="n", value=n, allowed=f"{len(always)} to {len(features)}")
    noise = np.broadcast_to(np.asarray(noise_variance, dtype=np.float64), (len(features),))
    moment = features.T @ features / len(features)
    covariance = np.eye(features.shape[1])
    chosen: list[int] = []
    free = np.ones(len(features), dtype=bool)
    for step in range(n):
        projected = features @ covariance
        variance = np.einsum("ij,ij->i", projected, features) + noise
        if step < len(always):
            row = int(always[step])
        else:
            gain = np.einsum("ij,ij->i", projected @ moment, projected) if criterion == "a" else variance
            gain = gain / (variance if criterion == "a" else noise)
            row = int(np.argmax(np.where(free, gain, -np.inf)))
        chosen.append(row)
        free[row] = False
        covariance -= np.outer(projected[row], projected[row]) / variance[row]
    return np.array(chosen, dtype=np.int64)


def reference_rows(
    space: SearchSpace,
    scaled_features: Callable[[Genotypes], FloatArray],
    n: int,
    *,
    seed: int,
    among: Genotypes | None,
    minimum: int,
    noise_variance: float | Callable[[Genotypes], FloatArray],
) -> Genotypes:
    """The ``n`` architectures that a linear model should see measured ``(n, D)``: the space's
    reference network first, if it names one, then A-optimal ones.

    Args:
        space: Where they come from.
        scaled_features: Of candidates, by the prior deviation of their weights.
        n: How many, the reference network included.
        seed: Of the candidates.
        among: Rows to choose from in place of the space, where only these can be measured.
        minimum: Fewest that the predictor can use.
        noise_variance: Of a measurement, relative to the mean latency; or of each candidate's.

    Raises:
        PredictorError: If n is below the minimum or above the number of architectures.
    """
    rows = candidates(space, seed=seed) if among is None else distinct(space, space.canonical(among))
    always = np.zeros(0, dtype=np.int64)
    if space.named:
        reference = space.named_genotype(next(iter(space.named)))
        found = np.flatnonzero((rows == reference).all(axis=1))
        if not len(found) and among is None:
            rows, found = np.concatenate([rows, reference[None]]), np.array([len(rows)])
        always = found[:1]
    if not minimum <= n <= len(rows):
        raise PredictorError(
            "cannot choose that many reference architectures", field="n", value=n, allowed=f"{minimum} to {len(rows)}"
        )
    noise = noise_variance(rows) if callable(noise_variance) else noise_variance
    return rows[optimal_design(scaled_features(rows), n, noise_variance=noise, always=always)]


def candidates(space: SearchSpace, *, seed: int, n: int = CANDIDATES) -> Genotypes:
    """Distinct canonical rows to choose from ``(N, D)``: the whole space if it holds at most ``n``
    architectures, else random ones and the cheapest and most expensive that a short climb finds."""
    if 10**space.log10_size <= n:
        return space.enumerate(n)
    rng = np.random.default_rng(seed)
    sampled = space.sample(n, rng)
    corners = [_climb(space, sampled, sign, rng) for sign in (1.0, -1.0)]
    return distinct(space, np.concatenate([sampled, *corners]))


def _climb(space: SearchSpace, start: Genotypes, sign: float, rng: np.random.Generator) -> Genotypes:
    """The ``CORNERS`` rows of least ``sign * MACs`` after a few rounds of mutation."""
    best = start
    for _ in range(CORNER_ROUNDS):
        macs = sign * space.costs(best).macs
        best = best[np.argsort(macs, kind="stable")[:CORNERS]]
        mutants = space.mutate(np.repeat(best, 8, axis=0), rng)
        best = distinct(space, np.concatenate([best, mutants]))
    return best[np.argsort(sign * space.costs(best).macs, kind="stable")[:CORNERS]]
