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

TICKS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
MAX_TICKS = 9


def set_quality_axis(axes: Axes, values: Sequence[float], *, is_share: bool) -> bool:
    """Scales the y axis for these qualities; shares of 1 are labelled as percentages.

    Returns:
        Whether the scale is logarithmic in the error ``1 - quality``.
    """
    from matplotlib.ticker import FuncFormatter

    if is_share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
    quality = np.array(values, dtype=np.float64)
    errors = 1.0 - quality
    if not is_share or len(quality) < 2 or np.min(errors) < 0:
        return False
    floor = float(np.min(errors[errors > 0], initial=1.0)) / 2
    low, high = max(float(np.min(errors)), floor), float(np.max(errors))
    if high / low < ERROR_RANGE:
        return False
    _by_error(axes, low, high, floor)
    return True


def _by_error(axes: Axes, low: float, high: float, floor: float) -> None:
    def forward(quality: FloatArray) -> FloatArray:
        return -np.log10(np.maximum(1.0 - np.asarray(quality, dtype=np.float64), floor / 4))

    def backward(position: FloatArray) -> FloatArray:
        return 1.0 - 10.0 ** -np.asarray(position, dtype=np.float64)

    axes.set_yscale("function", functions=(forward, backward))
    margin = (high / low) ** 0.06
    bottom, top = 1.0 - min(high * margin, 1.0), 1.0 - low / margin
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in TICKS if bottom <= tick <= top]
    while len(ticks) > MAX_TICKS:
        ticks = ticks[::-2][::-1]  # keep the highest, which matter most
    axes.set_yticks(ticks)
    axes.minorticks_off()
