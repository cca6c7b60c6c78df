"""How much slower a setting is under load: fitted to a few measured levels, asked for others.

After the latency models of ApproxDet (Xu et al., SenSys 2020, section 3.3), which are polynomials of degree 2 in
the levels of contention. Departures: the slowdown is modelled, not the latency, so that one model serves every
network of a setting; it is 1 without load by construction; and coefficients have a prior, so that few levels are
enough and a prediction has a standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, MeasurementError
from ..schema import Record
from .load import Load

PRIOR_STD = 1.0
"""Of a coefficient: one more process may well double the latency."""
PRIOR_NOISE = 0.1
PRIOR_WEIGHT = 1.0
"""What a slowdown differs by from the model before anything is known, and how many measurements that weighs."""
_ITERATIONS = 20

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LoadModel(Record):
    """latency(load) = latency(no load) * (1 + a cpu + b memory), and with degree 2 also + c cpu^2 + d cpu memory
    + e memory^2; ``cpu`` and ``memory`` in processes.

    Args:
        degree: 1 or 2.
        coefficients: In the order above.
        covariance: Of the coefficients.
        noise: Standard deviation of a measured slowdown around the model.
    """

    SCHEMA: ClassVar[str] = "gnomon.load_model/1"

    degree: int
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    noise: float

    @classmethod
    def fit(cls, loads: Sequence[Load], slowdowns: Sequence[float], degree: int = 1) -> Self:
        """The model of measured levels: Bayesian linear regression, the noise estimated along.

        Args:
            loads: Levels ``(n,)``.
            slowdowns: Latency under each over that without load ``(n,)``.
            degree: 1, or 2 for curves and for kinds of load that get into each other's way.

        Raises:
            ConfigError: If the degree is another, or there are fewer different levels than coefficients.
            MeasurementError: If a slowdown is not a positive number.
        """
        if degree not in (1, 2):
            raise ConfigError("not a degree of the load model", field="degree", value=degree, allowed="1 or 2")
        y = np.asarray(slowdowns, dtype=np.float64) - 1.0
        if y.shape != (len(loads),) or not np.isfinite(y).all() or (y <= -1.0).any():
            raise MeasurementError("a slowdown a level, each positive", field="slowdowns", value=list(slowdowns))
        x = np.array([_terms(load, degree) for load in loads])
        used = np.flatnonzero(x.any(axis=0)) if len(loads) else np.array([], dtype=int)
        needed = len(used)
        if not needed or len({load for load in loads if load.kinds}) < needed:
            raise ConfigError(
                "too few levels of load for this degree",
                field="levels",
                value=[str(load) for load in loads],
                allowed=f"{max(needed, 1)} different ones or more, besides none",
            )
        mean, covariance, noise = _regress(x, y)
        return cls(degree, tuple(map(float, mean)), tuple(tuple(map(float, row)) for row in covariance), noise)

    def slowdown(self, load: Load) -> tuple[float, float]:
        """Latency under ``load`` over that without, and its standard deviation for one measurement.

        It is wide where nothing like ``load`` was measured.
        """
        terms = np.array(_terms(load, self.degree))
        variance = float(terms @ np.array(self.covariance) @ terms)
        noise = self.noise if load.kinds else 0.0
        return 1.0 + float(terms @ np.array(self.coefficients)), math.sqrt(max(variance, 0.0) + noise**2)

    def latency_ms(self, unloaded_ms: float, load: Load) -> tuple[float, float]:
        """Latency in ms under ``load`` of what takes ``unloaded_ms`` without, and its standard deviation."""
        mean, std = self.slowdown(load)
        return unloaded_ms * mean, unloaded_ms * std


def _terms(load: Load, degree: int) -> tuple[float, ...]:
    cpu, memory = float(load.cpu), float(load.memory)
    return (cpu, memory) if degree == 1 else (cpu, memory, cpu * cpu, cpu * memory, memory * memory)


def _regress(x: npt.NDArray[np.float64], y: Vector) -> tuple[Vector, npt.NDArray[np.float64], float]:
    """Mean and covariance of the coefficients ``(p,)`` under their prior, and the noise that fits them."""
    n, p = x.shape
    variance = PRIOR_NOISE**2
    for _ in range(_ITERATIONS):
        precision = x.T @ x / variance + np.eye(p) / PRIOR_STD**2
        covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        mean = covariance @ x.T @ y / variance
        fitted = float(np.trace(x.T @ x @ covariance)) / variance  # coefficients that the data decide on
        residual = float(np.sum((y - x @ mean) ** 2))
        variance = (PRIOR_WEIGHT * PRIOR_NOISE**2 + residual) / (PRIOR_WEIGHT + max(n - fitted, 0.0))
    return mean, covariance, math.sqrt(variance)
