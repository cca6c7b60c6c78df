"""Regressions on columns that a few arrays describe completely.

Shapes: N rows, F columns, M rows kept by a kernel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CHUNK = 8192


class Regressor(ABC):
    """A fitted function of columns."""

    kind: ClassVar[str]
    """Its name in saved files."""

    @abstractmethod
    def predict(self, features: FloatArray) -> FloatArray:
        """``(N, F)`` to ``(N,)``."""

    @abstractmethod
    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Numeric arrays by name."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What :meth:`to_arrays` described; KeyError if an array is missing."""


@dataclass(frozen=True)
class Line(Regressor):
    """``features @ weights + bias``."""

    kind: ClassVar[str] = "line"
    weights: FloatArray
    bias: float

    def predict(self, features: FloatArray) -> FloatArray:
        """See :meth:`Regressor.predict`."""
        return np.asarray(features @ self.weights + self.bias)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Regressor.to_arrays`."""
        return {"weights": self.weights, "bias": np.array(self.bias)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`Regressor.from_arrays`."""
        return cls(np.asarray(arrays["weights"], dtype=np.float64), float(arrays["bias"]))


@dataclass(frozen=True)
class KernelRidge(Regressor):
    """``kernel(features, centres) @ dual + bias`` with a Gaussian kernel on scaled columns."""

    kind: ClassVar[str] = "kernel_ridge"
    centres: FloatArray
    offset: FloatArray
    scale: FloatArray
    dual: FloatArray
    bias: float

    def predict(self, features: FloatArray) -> FloatArray:
        """See :meth:`Regressor.predict`."""
        result = np.empty(len(features))
        for start in range(0, len(features), CHUNK):
            rows = slice(start, start + CHUNK)
            kernel = _gaussian((features[rows] - self.offset) / self.scale, self.centres)
            result[rows] = kernel @ self.dual + self.bias
        return result

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Regressor.to_arrays`."""
        return {
            "centres": self.centres,
            "offset": self.offset,
            "scale": self.scale,
            "dual": self.dual,
            "bias": np.array(self.bias),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`Regressor.from_arrays`."""
        centres, offset, scale, dual = (
            np.asarray(arrays[name], dtype=np.float64) for name in ("centres", "offset", "scale", "dual")
        )
        return cls(centres, offset, scale, dual, float(arrays["bias"]))


def fit_ridge(features: FloatArray, targets: FloatArray, strength: float, *, scaled: bool = False) -> Line:
    """Ridge regression with a free constant.

    Args:
        features: ``(N, F)``.
        targets: ``(N,)``.
        strength: Penalty on the squared weights, in squared errors.
        scaled: Whether columns are first divided by their standard deviation.
    """
    mean = features.mean(axis=0)
    scale = _spread(features) if scaled else np.ones(features.shape[1])
    centred = (features - mean) / scale
    residual = targets - targets.mean()
    if len(features) < features.shape[1]:
        gram = centred @ centred.T + strength * np.eye(len(features))
        weights = centred.T @ np.linalg.solve(gram, residual)
    else:
        gram = centred.T @ centred + strength * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, centred.T @ residual)
    weights = weights / scale
    return Line(weights, float(targets.mean() - mean @ weights))


def fit_positive_line(features: FloatArray, targets: FloatArray, strength: float = 0.0) -> Line:
    """The non-negative constant and weights of least squared *relative* error.

    Args:
        features: ``(N, F)``.
        targets: Positive ``(N,)``.
        strength: Penalty on the squared weights, not on the constant.
    """
    from scipy.optimize import nnls

    n_columns = features.shape[1]
    extended = np.concatenate([np.ones((len(features), 1)), features], axis=1) / targets[:, None]
    penalty = np.sqrt(strength) * np.eye(n_columns + 1)[1:]
    solution = nnls(np.concatenate([extended, penalty]), np.concatenate([np.ones(len(targets)), np.zeros(n_columns)]))
    return Line(np.asarray(solution[0][1:]), float(solution[0][0]))


def fit_kernel_ridge(features: FloatArray, targets: FloatArray, strength: float) -> KernelRidge:
    """Kernel ridge regression, ``exp(-d^2 / 2F)`` on columns of unit deviation."""
    offset, scale = features.mean(axis=0), _spread(features) * np.sqrt(2.0 * features.shape[1])
    centres = (features - offset) / scale
    kernel = _gaussian(centres, centres)
    bias = float(targets.mean())
    dual = np.asarray(np.linalg.solve(kernel + strength * np.eye(len(kernel)), targets - bias), dtype=np.float64)
    return KernelRidge(centres, offset, scale, dual, bias)


def _spread(features: FloatArray) -> FloatArray:
    """Standard deviation of each column; 1 where it is constant."""
    deviation = features.std(axis=0)
    return np.where(deviation > 1e-9, deviation, 1.0)


def _gaussian(left: FloatArray, right: FloatArray) -> FloatArray:
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2.0 * (left @ right.T)
    return np.asarray(np.exp(-np.maximum(squares, 0.0)))
