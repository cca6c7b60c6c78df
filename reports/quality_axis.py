"""The axis of quality: linear, or by error on a log scale where scores crowd near 100 %."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = npt.NDArray[np.float64]

ERROR_RANGE = 8.0
"""Error rates that span more than this factor are drawn on a log scale of the error."""

TICKS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0)
MAX_TICKS = 9


FENCE = 3.0
"""Qualities more than so many interquartile ranges below the lower quartile are outliers."""


def outlier_floor(values: Sequence[float]) -> float | None:
    """The smallest quality that is no outlier; None if there are none, or too few to tell."""
    quality = np.sort(np.array(values, dtype=np.float64))
    if len(quality) < 8:
        return None
    lower, upper = np.quantile(quality, (0.25, 0.75))
    inside = quality[quality >= lower - FENCE * (upper - lower)]
    return None if len(inside) == len(quality) or upper <= lower else float(inside[0])


def set_quality_axis(axes: Axes, values: Sequence[float], *, is_share: bool) -> bool:
    """Scales the y axis for these qualities; shares of 1 are labelled as percentages.

    Returns:
        Whether the scale is logarithmic in the error ``1 - quality``.
    """
    from matplotlib.ticker import FuncFormatter

    by_error = is_share and _set_error_scale(axes, values)
    if is_share:  # a new scale resets the formatter, so this comes last
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
    return by_error


def _set_error_scale(axes: Axes, values: Sequence[float]) -> bool:
    """Scales by the error if error rates span far enough; returns whether they do."""
    errors = 1.0 - np.array(values, dtype=np.float64)
    positive = errors[errors > 0]
    if len(errors) < 2 or len(positive) == 0:
        return False
    floor = float(positive.min())
    perfect = bool((errors <= 0).any())
    low, high = floor / 2 if perfect else floor, float(positive.max())
    if high / low < ERROR_RANGE:
        return False
    scale = _ErrorScale(floor / 2)
    axes.set_yscale("function", functions=(scale.forward, scale.backward))
    margin = (high / low) ** 0.09
    bottom = max(0.0, 1.0 - high * margin)
    top = 1.0 + 0.2 * scale.floor if perfect else 1.0 - low / margin
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in TICKS if bottom <= tick <= top]
    while len(ticks) > MAX_TICKS:
        ticks = ticks[::-2][::-1]  # keep the highest, which matter most
    axes.set_yticks(ticks)
    axes.minorticks_off()
    return True


class _ErrorScale:
    """``-log10(1 - quality)``, continued by its tangent below an error of ``floor``, so that a
    perfect score has a place too."""

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.start = -np.log10(floor)
        self.slope = 1.0 / (floor * np.log(10.0))

    def forward(self, quality: FloatArray) -> FloatArray:
        error = 1.0 - np.asarray(quality, dtype=np.float64)
        tangent = self.start + (self.floor - error) * self.slope
        return np.where(error > self.floor, -np.log10(np.maximum(error, self.floor)), tangent)

    def backward(self, position: FloatArray) -> FloatArray:
        position = np.asarray(position, dtype=np.float64)
        tangent = self.floor - (position - self.start) / self.slope
        error: FloatArray = np.where(position < self.start, 10.0 ** -np.minimum(position, self.start), tangent)
        return 1.0 - error
