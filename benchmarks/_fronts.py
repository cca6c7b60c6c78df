"""Fronts of latency and accuracy, and how much faster one is than another at equal accuracy.

Shapes: P networks, S seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gnomon.search.pareto import non_dominated

FloatArray = npt.NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

GRID = 50
"""Accuracies at which two fronts are compared, evenly spaced over what both reach."""
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Point:
    """A network, trained with S seeds.

    Args:
        name: In tables and plots.
        latency_ms: Measured.
        validation: Accuracies 0..1 ``(S,)``; by their mean a front is chosen.
        test: Accuracies 0..1 ``(S,)``; by their mean fronts are compared.
    """

    name: str
    latency_ms: float
    validation: tuple[float, ...]
    test: tuple[float, ...]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in mean validation accuracy and latency, ascending in latency."""
    losses = np.array([[point.latency_ms, -np.mean(point.validation)] for point in points])
    chosen = [point for point, on in zip(points, non_dominated(losses), strict=True) if on]
    return sorted(chosen, key=lambda point: point.latency_ms)


def near_front(networks: Mapping[Name, tuple[float, float]], near: float) -> set[Name]:
    """Those of ``(latency_ms, accuracy)`` at most ``near`` below the best accuracy of any as fast or faster."""
    return {
        name
        for name, (latency_ms, accuracy) in networks.items()
        if accuracy >= max(a for ms, a in networks.values() if ms <= latency_ms) - near
    }


@dataclass(frozen=True)
class Line:
    """A front between its points: the latency that an accuracy costs.

    Args:
        accuracy: Of the corners, strictly ascending.
        latency_ms: Of the corners.
    """

    accuracy: FloatArray
    latency_ms: FloatArray

    def at(self, accuracy: FloatArray) -> FloatArray:
        """Latency in ms, log-linear between corners; below the first corner its latency, above the last NaN."""
        log_ms: FloatArray = np.interp(accuracy, self.accuracy, np.log(self.latency_ms), right=np.nan)
        return np.asarray(np.exp(log_ms))


def line(latency_ms: FloatArray, test: FloatArray) -> Line:
    """Through points ``(P,)`` ascending in latency. Test accuracies that chance put in the wrong order are pooled by
    isotonic regression, which favours no side; of equal accuracies the fastest is the corner."""
    from sklearn.isotonic import IsotonicRegression

    smooth = IsotonicRegression().fit_transform(np.arange(len(test)), test)
    corners = np.flatnonzero(np.diff(smooth, prepend=-np.inf) > 1e-12)
    return Line(smooth[corners], latency_ms[corners])


def line_of(points: Sequence[Point]) -> Line:
    """Through the mean test accuracies of a front."""
    return line(np.array([p.latency_ms for p in points]), np.array([np.mean(p.test) for p in points]))


@dataclass(frozen=True)
class Speedup:
    """How many times faster one front is than another.

    Args:
        mean: Geometric, over evenly spaced accuracies that both reach.
        least, most: Over these accuracies.
        low, high: 90 % interval of ``mean`` over seeds.
        from_accuracy, to_accuracy: What both reach.
    """

    mean: float
    least: float
    most: float
    low: float
    high: float
    from_accuracy: float
    to_accuracy: float


def speedup(
    ours: Sequence[Point], theirs: Sequence[Point], margin: float = 0.0, seed: int = 0, *, or_better: bool = False
) -> Speedup | None:
    """Of the front of ``ours`` over that of ``theirs``; None if they reach no common accuracy.

    The range reaches from the higher of the two lowest accuracies to the lower of the two highest.

    Args:
        ours, theirs: Networks; their fronts are chosen here.
        margin: Added to the accuracy of theirs: how clear the advantage is.
        or_better: Compares at all accuracies of theirs that ours reach or exceed: where all of ours are more accurate,
            with the fastest of them. Without it, a front that is better everywhere has nothing in common with theirs.
        seed: Of the bootstrap over seeds, in which the fronts' members stay.
    """
    own, other = front(ours), front(theirs)
    ratios = _ratios(line_of(own), _shifted(line_of(other), margin), or_better)
    if ratios is None:
        return None
    accuracies, values = ratios
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(BOOTSTRAPS):
        drawn = _ratios(_resampled(own, rng), _shifted(_resampled(other, rng), margin), or_better)
        if drawn is not None:
            means.append(float(np.exp(np.log(drawn[1]).mean())))
    low, high = np.quantile(means, [0.05, 0.95]) if means else (np.nan, np.nan)
    return Speedup(
        float(np.exp(np.log(values).mean())),
        float(values.min()),
        float(values.max()),
        float(low),
        float(high),
        float(accuracies[0]),
        float(accuracies[-1]),
    )


def _ratios(own: Line, other: Line, or_better: bool) -> tuple[FloatArray, FloatArray] | None:
    """Accuracies that both reach (or ours exceed), and their latency over ours there."""
    least = other.accuracy[0] if or_better else max(own.accuracy[0], other.accuracy[0])
    most = min(own.accuracy[-1], other.accuracy[-1])
    if least > most:
        return None
    accuracies = np.linspace(least, most, GRID)
    return accuracies, other.at(accuracies) / own.at(accuracies)


def _shifted(found: Line, margin: float) -> Line:
    return Line(found.accuracy + margin, found.latency_ms)


def _resampled(points: Sequence[Point], rng: np.random.Generator) -> Line:
    """The line with each network's seeds drawn anew."""
    test = np.array([np.mean(rng.choice(point.test, len(point.test))) for point in points])
    return line(np.array([point.latency_ms for point in points]), test)
