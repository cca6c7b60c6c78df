"""Objectives that ship: a Pareto front over any metrics, and MnasNet's rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import ConfigError
from .objective import DIRECTIONS, Direction, FloatArray, LatencyLimit, Objective


class ParetoObjective(Objective):
    """Each metric is an objective value of its own.

    Args:
        metrics: Names out of ``DIRECTIONS``.
        latency_ms, latency, reference, confidence: See :class:`LatencyLimit`.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("quality", "latency_ms"),
        latency_ms: float | None = None,
        latency: str | float | None = None,
        reference: str = "",
        confidence: float = 0.9,
    ) -> None:
        super().__init__(LatencyLimit(latency_ms, latency, reference, confidence))
        unknown = [m for m in metrics if m not in DIRECTIONS]
        if unknown or len(set(metrics)) != len(metrics) or not metrics:
            raise ConfigError(
                "unknown, repeated or no metrics", field="objective.metrics", value=list(metrics), allowed=DIRECTIONS
            )
        self.metrics = tuple(metrics)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return tuple(DIRECTIONS[m] for m in self.metrics)

    @property
    def names(self) -> tuple[str, ...]:
        return self.metrics

    def values(self, metrics: Mapping[str, FloatArray], limit_ms: float | None) -> FloatArray:
        return np.stack([metrics[m] for m in self.metrics], axis=1)


class MnasNetReward(Objective):
    """``quality * (latency / T) ** w`` (MnasNet, 1807.11626, equations 2 and 3).

    ``w`` is ``alpha`` within the limit T and ``beta`` beyond it. Soft: both -0.07. Hard: 0 and -1,
    which is no filter: infeasible models still score; the latency limit's violation is kept apart.

    Args:
        alpha, beta: Exponents.
        latency_ms, latency, reference, confidence: The target T; see :class:`LatencyLimit`.
    """

    metrics = ("quality", "latency_ms")

    def __init__(
        self,
        alpha: float = -0.07,
        beta: float = -0.07,
        latency_ms: float | None = None,
        latency: str | float | None = None,
        reference: str = "",
        confidence: float = 0.9,
    ) -> None:
        super().__init__(LatencyLimit(latency_ms, latency, reference, confidence))
        if latency_ms is None and latency is None:
            raise ConfigError(
                "MnasNet's reward needs a target",
                field="objective.latency_ms",
                value=None,
                allowed="objective.latency_ms or objective.latency",
            )
        self.alpha = alpha
        self.beta = beta

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ("maximize",)

    @property
    def names(self) -> tuple[str, ...]:
        return ("reward",)

    def values(self, metrics: Mapping[str, FloatArray], limit_ms: float | None) -> FloatArray:
        if limit_ms is None:  # the constructor asked for a target; only a wrong caller comes here
            raise ConfigError("MnasNet's reward needs a target", field="limit_ms", value=None)
        ratio = metrics["latency_ms"] / limit_ms
        reward = metrics["quality"] * ratio ** np.where(ratio <= 1.0, self.alpha, self.beta)
        return reward[:, None]
