"""Values to normal scores of their ranks, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TAIL_SHARE = 0.2
"""Share of the values whose slope continues the map beyond the extremes."""


class NormalScores:
    """The monotone map between values and standard-normal scores, learnt from ``values`` ``(N,)``.

    Ties share their mean rank. Between known values the map back is linear; beyond the extremes
    it goes on with the mean slope of the nearest fifth of the values.

    Attributes:
        forward: Scores of the values ``(N,)``, of mean 0.
    """

    def __init__(self, values: FloatArray) -> None:
        from scipy.special import ndtri

        n = len(values)
        self._values, group, counts = np.unique(values, return_inverse=True, return_counts=True)
        mean_ranks = np.cumsum(counts) - (counts - 1) / 2
        scores = np.asarray(ndtri((mean_ranks - 0.5) / n))
        self._scores: FloatArray = scores - (scores * counts).sum() / n
        self.forward: FloatArray = self._scores[group]
        tail = max(2, round(TAIL_SHARE * n))
        self._low = _slope(self._scores[:tail], self._values[:tail])
        self._high = _slope(self._scores[-tail:], self._values[-tail:])

    def inverse(self, mean: FloatArray, deviation: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means and deviations of scores as means and deviations of values, to first order: half
        the distance between the images of one deviation up and one down."""
        upper, lower = self.values(mean + deviation), self.values(mean - deviation)
        floor = 1e-9 + 1e-9 * np.abs(self._values).max()
        return self.values(mean), np.maximum((upper - lower) / 2, floor)

    def values(self, scores: FloatArray) -> FloatArray:
        """The values of scores, of any shape."""
        inside = np.interp(scores, self._scores, self._values)
        above = self._high * np.maximum(scores - self._scores[-1], 0)
        below = self._low * np.minimum(scores - self._scores[0], 0)
        return np.asarray(inside + above + below)


def _slope(scores: FloatArray, values: FloatArray) -> float:
    span = scores[-1] - scores[0]
    return float((values[-1] - values[0]) / span) if span > 0 else 0.0
