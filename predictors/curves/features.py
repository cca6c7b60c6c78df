"""What a regressor sees of a training that is under way.

Shapes: N trainings, t epochs seen, F features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def curve_features(curves: FloatArray) -> FloatArray:
    """Values, first and second differences of the beginnings of curves (Baker et al., 1705.10823, Section 3).

    Args:
        curves: The metric after each of the same first epochs ``(N, t)``, t at least 1.

    Returns:
        ``(N, F)`` with F = t + max(t - 1, 0) + max(t - 2, 0).
    """
    return np.concatenate([curves, np.diff(curves, axis=1), np.diff(curves, n=2, axis=1)], axis=1)
