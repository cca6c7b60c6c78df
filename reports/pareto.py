"""Which points are not dominated, and the line through them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def front_mask(cost: FloatArray, quality: FloatArray) -> npt.NDArray[np.bool_]:
    """Points ``(N,)`` that no other beats: smaller cost and larger quality are better.

    Of equal points the first one counts.
    """
    mask = np.zeros(len(cost), dtype=bool)
    best = -np.inf
    for i in np.lexsort((-quality, cost)):
        if quality[i] > best:
            mask[i] = True
            best = quality[i]
    return mask


def staircase(cost: FloatArray, quality: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The front's points ``(F,), (F,)`` by growing cost, for a step line (``where="post"``)."""
    mask = front_mask(cost, quality)
    order = np.argsort(cost[mask], kind="stable")
    return cost[mask][order], quality[mask][order]
