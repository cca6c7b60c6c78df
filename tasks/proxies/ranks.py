"""Several proxies as one figure: by rank, against a fixed sample of the space.

Shapes: N networks, M reference networks, P proxies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import TaskError

FloatArray = npt.NDArray[np.float64]


class ReferenceRanks:
    """Ranks of scores among those of reference networks, combined as AZ-NAS does it (2403.19232, Section 3.3): by the
    sum of the logarithms of the ranks, so that a network that is bad by one proxy is not saved by the others.

    A rank depends on whom one is ranked with. AZ-NAS ranks the networks seen so far, and a network's figure changes as
    others are seen. Here all are ranked against the same reference networks, so that a figure is the network's own.
    Between two references a rank is interpolated, and beyond the best of them it goes on to grow, ever more slowly:
    a search that has left the reference networks behind is still told which of two networks is better.

    Args:
        reference: Scores ``(M, P)``, finite or -inf.

    Raises:
        TaskError: If a proxy is -inf for all of them, so that it ranks nothing.
    """

    def __init__(self, reference: FloatArray) -> None:
        self._columns = [np.sort(column[np.isfinite(column)]) for column in np.asarray(reference, dtype=np.float64).T]
        if not self._columns or any(not len(column) for column in self._columns):
            raise TaskError(
                "a proxy can say nothing of any reference network, so there is nothing to rank with",
                field="quality.reference",
                value=len(reference),
                allowed="more reference networks, or another proxy",
            )
        self._count = len(reference)

    def shares(self, scores: FloatArray) -> FloatArray:
        """Ranks in 0 to 1 ``(N, P)``, strictly increasing in the score; -inf shares the least with nothing else."""
        columns = [self._share(column, values) for column, values in zip(self._columns, scores.T, strict=True)]
        return np.stack(columns, axis=1)

    def combined(self, scores: FloatArray) -> FloatArray:
        """Geometric mean of the shares ``(N,)``, above 0 and below 1."""
        return np.asarray(np.exp(np.log(self.shares(scores)).mean(axis=1)))

    def _share(self, known: FloatArray, values: FloatArray) -> FloatArray:
        """(rank + 1/2) / (M + 1): in a whole rank's width below the least and above the greatest, squashed."""
        below = self._count - len(known)  # references at -inf
        distinct, first = np.unique(known, return_index=True)
        last = np.append(first[1:], len(known)) - 1
        middle = below + (first + last) / 2 + 1.0  # ties share their mean rank; -inf has rank 0 or their mean
        scale = float(np.subtract(*np.quantile(known, [0.75, 0.25]))) or max(float(np.abs(known).max()), 1e-12)
        finite = np.isfinite(values)
        safe = np.where(finite, values, distinct[0])
        rank = np.interp(safe, distinct, middle)
        over, under = np.maximum(safe - distinct[-1], 0) / scale, np.maximum(distinct[0] - safe, 0) / scale
        rank = rank + 0.5 * over / (1 + over) - 0.5 * under / (1 + under)
        rank = np.where(finite, rank, below / 2)
        return np.asarray((rank + 0.5) / (self._count + 1.5))
