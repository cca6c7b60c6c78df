"""A latency model that is linear in a space's features, fast enough for an inner loop.

Shapes: N architectures, F features, K coordinates of the deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from ..search_spaces.chunks import map_chunks
from .bundle import SavableLatencyModel
from .features import FeatureBasis

FloatArray = npt.NDArray[np.float64]

KEPT_VARIANCE = 0.99
"""Share of the mean posterior variance that the factor keeps; the rest is added everywhere."""

MOST_COLUMNS = 32
"""Of the factor: what many choices add evenly is not worth a column each."""


@dataclass(frozen=True)
class LinearParameters:
    """The numbers of a model, in ms: what is saved.

    Args:
        weights: Mean ``features @ weights + bias`` ``(F,)``.
        bias: See above.
        factor: Posterior deviation: ``|features @ factor + factor_bias|`` ``(F, K)``.
        factor_bias: See above ``(K,)``.
        variance: Added to the variance of every architecture.
        relative_noise: Deviation of a measurement as a share of the mean latency.
        floor_ms: Least mean.
    """

    weights: FloatArray
    bias: float
    factor: FloatArray
    factor_bias: FloatArray
    variance: float
    relative_noise: float
    floor_ms: float

    def to_arrays(self) -> dict[str, FloatArray]:
        """As named arrays, for an npz file."""
        return {f.name: np.asarray(getattr(self, f.name), dtype=np.float64) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> LinearParameters:
        """What :meth:`to_arrays` gave."""
        values: dict[str, Any] = {}
        for name in (f.name for f in fields(cls)):
            value = np.asarray(arrays[name], dtype=np.float64)
            values[name] = value if value.ndim else float(value)
        return cls(**values)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation in ms, each ``(N,)``, of features ``(N, F)``."""
        mean, deviation = np.empty(len(features)), np.empty(len(features))

        def fill(rows: slice) -> None:
            np.maximum(features[rows] @ self.weights + self.bias, self.floor_ms, out=mean[rows])
            coordinates = features[rows] @ self.factor + self.factor_bias
            variance = np.einsum("ij,ij->i", coordinates, coordinates) + self.variance
            np.sqrt(variance + np.square(self.relative_noise * mean[rows]), out=deviation[rows])

        map_chunks(fill, len(features))
        return mean, deviation


class LinearLatencyModel(SavableLatencyModel):
    """Latency as a linear function of features, with a predictive deviation.

    Where the space's features are sums of look-up tables, weights and factor are folded into the
    tables, so that an architecture costs one look-up a block.
    """

    EXECUTIONS: ClassVar[bool] = False
    """Whether the basis holds what runs under each execution; see :class:`FeatureBasis`."""

    def __init__(self, basis: FeatureBasis, parameters: LinearParameters) -> None:
        self.space = basis.space
        self.basis = basis
        self.parameters = parameters

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`SavableLatencyModel.to_arrays`."""
        return self.parameters.to_arrays()

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`SavableLatencyModel.from_arrays`."""
        basis = FeatureBasis(space, executions=cls.EXECUTIONS)
        expected = {f.name for f in fields(LinearParameters)}
        if set(arrays) != expected:
            raise PredictorError("wrong arrays", field="arrays", value=sorted(arrays), allowed=sorted(expected))
        parameters = LinearParameters.from_arrays(arrays)
        n_features = len(basis.mean)
        if parameters.weights.shape != (n_features,) or parameters.factor.shape[:1] != (n_features,):
            raise PredictorError(
                "the model has another number of features than the space",
                field="weights",
                value=parameters.weights.shape,
                allowed=f"({n_features},)",
            )
        return cls(basis, parameters)

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        p = self.parameters
        if not p.factor.shape[1]:
            mean = self.predict_mean(genotypes)
            return mean, np.sqrt(np.square(p.relative_noise * mean) + p.variance)
        mean, deviation = np.empty(len(genotypes)), np.empty(len(genotypes))

        def fill(rows: slice) -> None:
            values = self._linear(genotypes[rows], with_deviation=True)
            np.maximum(values[:, 0], p.floor_ms, out=mean[rows])
            np.einsum("ij,ij->i", values[:, 1:], values[:, 1:], out=deviation[rows])
            deviation[rows] += p.variance
            deviation[rows] += np.square(p.relative_noise * mean[rows])
            np.sqrt(deviation[rows], out=deviation[rows])

        map_chunks(fill, len(genotypes))
        return mean, deviation

    def predict_mean(self, genotypes: Genotypes) -> FloatArray:
        """See :meth:`LatencyModel.predict_mean`."""
        mean = np.empty(len(genotypes))

        def fill(rows: slice) -> None:
            values = self._linear(genotypes[rows], with_deviation=False)
            np.maximum(values, self.parameters.floor_ms, out=mean[rows])

        map_chunks(fill, len(genotypes))
        return mean

    def _linear(self, genotypes: Genotypes, *, with_deviation: bool) -> FloatArray:
        """Mean, followed by the coordinates of the deviation if asked for."""
        p = self.parameters
        if self.basis.additive is not None:
            folded, offset = self._folded if with_deviation else self._folded_mean
            return np.asarray(folded.sum(genotypes) + offset)
        features = self.basis.features(genotypes)
        if not with_deviation:
            return np.asarray(features @ p.weights + p.bias)
        stacked, offset = self._stacked
        return np.asarray(features @ stacked + offset)

    @cached_property
    def _stacked(self) -> tuple[FloatArray, FloatArray]:
        p = self.parameters
        return np.concatenate([p.weights[:, None], p.factor], axis=1), np.concatenate([[p.bias], p.factor_bias])

    @cached_property
    def _folded(self) -> tuple[Any, FloatArray]:
        stacked, offset = self._stacked
        return self.basis.additive.fold(stacked), offset  # type: ignore[union-attr]

    @cached_property
    def _folded_mean(self) -> tuple[Any, float]:
        return self.basis.additive.fold(self.parameters.weights), self.parameters.bias  # type: ignore[union-attr]


def factorise(covariance: FloatArray, root: FloatArray, kept: float = KEPT_VARIANCE) -> tuple[FloatArray, float]:
    """Few columns C ``(F, K)`` and a constant with ``x C C^T x + constant`` near ``x covariance x``.

    Args:
        covariance: Of the weights ``(F, F)``.
        root: R with ``R R^T`` the second moment of the features x over the space ``(F, F)``.
        kept: Share of the mean of ``x covariance x`` that C explains; the constant is the rest.
    """
    projected = covariance @ root
    values, vectors = np.linalg.eigh(root.T @ projected)
    explained = np.cumsum(np.maximum(values[::-1], 0.0))
    total = float(explained[-1])
    if total <= 0:
        return np.zeros((len(covariance), 0)), 0.0
    k = min(int(np.searchsorted(explained, kept * total)) + 1, MOST_COLUMNS, len(explained))
    columns = projected @ vectors[:, ::-1][:, :k] / np.sqrt(np.maximum(values[::-1][:k], 1e-300))
    return columns, max(total - float(explained[k - 1]), 0.0)
