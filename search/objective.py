"""Objectives: what is optimised, and the latency limit that must hold.

Shapes: N architectures, M objective values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError

FloatArray = npt.NDArray[np.float64]
Direction: TypeAlias = Literal["maximize", "minimize"]

DIRECTIONS: Mapping[str, Direction] = {
    "quality": "maximize",
    "latency_ms": "minimize",
    "parameters": "minimize",
    "macs": "minimize",
    "cio": "minimize",
    "peak_activation_bytes": "minimize",
}
"""Every metric an objective may name, and its better direction."""


MAX_SHARE = 20.0
"""A relative limit beyond this is a percent sign forgotten, not a limit."""


@dataclass(frozen=True)
class LatencyLimit:
    """A limit on latency that must hold with probability ``confidence``.

    Args:
        latency_ms: Absolute limit.
        latency: Share of a named reference network's latency measured here, as ``"60%"`` or 0.6.
        reference: That network; empty for the space's first named one.
        confidence: Probability with which the predicted latency must be within the limit.
    """

    latency_ms: float | None = None
    latency: str | float | None = None
    reference: str = ""
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if self.latency_ms is not None and self.latency is not None:
            raise ConfigError(
                "give an absolute or a relative limit, not both", field="objective.latency", value=self.latency
            )
        if self.latency_ms is not None and not (self.latency_ms > 0 and math.isfinite(self.latency_ms)):
            raise ConfigError(
                "not a latency", field="objective.latency_ms", value=self.latency_ms, allowed="> 0, in ms"
            )
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(
                "not a confidence", field="objective.confidence", value=self.confidence, allowed="0.5 to below 1"
            )
        if self.latency is not None:
            self.share  # noqa: B018 - validates

    @property
    def share(self) -> float | None:
        """The relative limit as a fraction, or None."""
        if self.latency is None:
            return None
        text = str(self.latency).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = math.nan
        if not 0 < share <= MAX_SHARE:
            raise ConfigError(
                "not a share of the reference network's latency",
                field="objective.latency",
                value=self.latency,
                allowed='like "60%" or 0.6',
            )
        return share

    def resolve(self, reference_ms: float | None) -> float | None:
        """The limit in ms, given the reference network's measured latency; None if unlimited."""
        if self.share is None:
            return self.latency_ms
        if reference_ms is None:
            raise ConfigError(
                "needs a reference network, and this space names none",
                field="objective.latency",
                value=self.latency,
                allowed="objective.latency_ms",
            )
        return self.share * reference_ms


class Objective(ABC):
    """Maps metrics of architectures to M values to optimise."""

    metrics: tuple[str, ...]
    """Names out of ``DIRECTIONS`` that :meth:`values` reads."""

    def __init__(self, limit: LatencyLimit) -> None:
        self.limit = limit

    @property
    @abstractmethod
    def directions(self) -> tuple[Direction, ...]:
        """One per objective value."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """One per objective value, for tables and dashboards."""

    @abstractmethod
    def values(self, metrics: Mapping[str, FloatArray], limit_ms: float | None) -> FloatArray:
        """Objective values ``(N, M)`` in their own directions, from ``(N,)`` columns."""

    def losses(self, metrics: Mapping[str, FloatArray], limit_ms: float | None) -> FloatArray:
        """Values ``(N, M)`` with every column to be minimised."""
        signs = np.array([-1.0 if d == "maximize" else 1.0 for d in self.directions])
        losses: FloatArray = self.values(metrics, limit_ms) * signs
        return losses

    def violation(self, mean_ms: FloatArray, std_ms: FloatArray, limit_ms: float | None) -> FloatArray:
        """Relative excess over the limit ``(N,)``: at most 0 where it holds with the confidence,
        reading mean and std as a normal predictive distribution."""
        if limit_ms is None:
            return np.zeros_like(mean_ms)
        z = NormalDist().inv_cdf(self.limit.confidence)
        return (mean_ms + z * std_ms) / limit_ms - 1.0

    def feasibility(self, mean_ms: FloatArray, std_ms: FloatArray, limit_ms: float | None) -> FloatArray:
        """Probability that the limit holds ``(N,)`` under the distribution that :meth:`violation` reads."""
        from scipy.special import ndtr

        if limit_ms is None:
            return np.ones_like(mean_ms)
        room = limit_ms - mean_ms
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(std_ms > 0, room / std_ms, np.where(room >= 0, np.inf, -np.inf))
        return np.asarray(ndtr(z))
