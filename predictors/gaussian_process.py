"""Gaussian-process regression for a few hundred points, its settings chosen by evidence.

Shapes: N training points, Q queries, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LENGTH_SCALES = (0.5, 1.0, 2.0)
LINEAR_SHARES = (0.0, 0.3, 2.0)
RELEVANCES = (0.15, 0.5, 1.0)
"""How much the second group of features may count beside the first."""

NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)
MAX_EVIDENCE_POINTS = 200
"""The grid costs an eigendecomposition a kernel, so it looks at this many points at most."""

QUERY_CHUNK = 2048
JITTER = 1e-4
"""Added to the variance of joint draws, relative to the prior's: single precision leaves rounding errors below it."""


@dataclass(frozen=True)
class _Kernel:
    """Matérn 5/2 of the given length scale plus ``linear`` times the inner product."""

    length_scale: float
    linear: float

    def __call__(self, a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        inner = a @ b.T
        squared = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * inner
        scaled = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
        scaled *= np.asarray(np.sqrt(5.0) / self.length_scale, dtype=scaled.dtype)
        kernel = np.exp(-scaled)
        kernel *= 1 + scaled + np.square(scaled) / 3
        inner *= np.asarray(self.linear, dtype=inner.dtype)
        kernel += inner
        return np.asarray(kernel)

    def diagonal(self, a: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return np.asarray(1 + self.linear * np.square(a).sum(1))


class GaussianProcess:
    """Zero-mean Gaussian process with a Matérn 5/2 + linear kernel.

    Length scale, linear share, the relevance of the second group of features, and noise come from
    a small grid by marginal likelihood, with the overall scale maximised in closed form (Rasmussen
    and Williams 2006, sections 5.4.1-5.4.2), so that fitting is deterministic and quick.

    Args:
        features: ``(N, F)``, already scaled; each group is divided by the root of its size here,
            so that distances between typical points are near 1 whatever F is.
        targets: ``(N,)``, already centred.
        split: Columns from here on are the second group; F if there is none.
    """

    def __init__(self, features: npt.NDArray[np.floating], targets: FloatArray, split: int) -> None:
        from scipy.linalg import cho_factor, cho_solve, solve_triangular

        step = max(1, -(-len(features) // MAX_EVIDENCE_POINTS))
        scales = _scales(features.shape[1], split)
        self.kernel, self.noise, self._column_scale = _most_likely(
            features[::step].astype(np.float64), targets[::step], scales
        )
        x = features * self._column_scale
        gram = self.kernel(x, x)
        gram[np.diag_indices_from(gram)] += self.noise
        factor = cho_factor(gram, lower=True)
        weights = cho_solve(factor, targets)
        self.scale = max(float(targets @ weights) / len(targets), 1e-12)
        inverse_diagonal = np.diag(cho_solve(factor, np.eye(len(x))))
        # Leave-one-out in closed form: Rasmussen and Williams 2006, equations 5.10-5.12.
        self.loo_mean = targets - weights / inverse_diagonal
        self.loo_variance = self.scale / inverse_diagonal
        self._x = x.astype(np.float32)
        self._weights = weights.astype(np.float32)
        # Inverse of the Cholesky factor, so that the variance of queries is one matrix product.
        self._whiten = solve_triangular(factor[0], np.eye(len(x)), lower=True).T.astype(np.float32)

    def predict(self, features: npt.NDArray[np.floating]) -> tuple[FloatArray, FloatArray]:
        """Mean and variance (with noise) of the queries, each ``(Q,)``."""
        mean = np.empty(len(features))
        variance = np.empty(len(features))
        for start in range(0, len(features), QUERY_CHUNK):
            rows = slice(start, start + QUERY_CHUNK)
            q = features[rows].astype(np.float32) * self._column_scale.astype(np.float32)
            cross = self.kernel(q, self._x)
            mean[rows] = cross @ self._weights
            explained = np.square(cross @ self._whiten).sum(1)
            variance[rows] = np.maximum(self.kernel.diagonal(q) - explained, 0) + self.noise
        return mean, variance * self.scale

    def draw(
        self, features: npt.NDArray[np.floating], n: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Means ``(Q,)`` of the queries, and ``n`` joint draws of how far off they are, noise included ``(n, Q)``.

        Queries are a few thousand at most: their covariance is factorised.
        """
        q = features * self._column_scale
        cross = self.kernel(q, self._x.astype(np.float64))
        explained = cross @ self._whiten.astype(np.float64)
        covariance = self.kernel(q, q) - explained @ explained.T
        covariance[np.diag_indices_from(covariance)] += JITTER * self.kernel.diagonal(q)
        root = np.linalg.cholesky(covariance)
        together = rng.standard_normal((n, len(q))) @ root.T
        alone = rng.standard_normal((n, len(q))) * np.sqrt(self.noise)
        return cross @ self._weights, (together + alone) * np.sqrt(self.scale)


def _scales(n_features: int, split: int) -> list[FloatArray]:
    """Factors on the columns ``(F,)``, one for each relevance of the second group."""
    if split in (0, n_features):
        return [np.full(n_features, 1.0 / np.sqrt(max(n_features, 1)))]
    first = np.full(split, 1.0 / np.sqrt(split))
    second = np.full(n_features - split, 1.0 / np.sqrt(n_features - split))
    return [np.concatenate([first, relevance * second]) for relevance in RELEVANCES]


def _most_likely(x: FloatArray, targets: FloatArray, scales: list[FloatArray]) -> tuple[_Kernel, float, FloatArray]:
    """Kernel, noise and column scales of the largest marginal likelihood on the grid."""
    best = max(((*found, scale) for scale in scales for found in _evidence(x * scale, targets)), key=lambda f: f[0])
    return best[1:]


def _evidence(x: FloatArray, targets: FloatArray) -> Iterator[tuple[float, _Kernel, float]]:
    n = len(targets)
    for length_scale in LENGTH_SCALES:
        for linear in LINEAR_SHARES:
            kernel = _Kernel(length_scale, linear)
            eigenvalues, vectors = np.linalg.eigh(kernel(x, x))
            squared = np.square(vectors.T @ targets)
            for noise in NOISES:
                spectrum = np.maximum(eigenvalues, 0) + noise
                scale = max(float((squared / spectrum).mean()), 1e-300)
                yield -0.5 * (n * np.log(scale) + float(np.log(spectrum).sum())), kernel, noise
