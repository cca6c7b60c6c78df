"""How often each choice of each decision was trained.

Shapes: D decisions, C choices of the decision that has most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...records.shared_training import ChoiceCount
from ...search_spaces import Genotypes, SearchSpace


class ChoiceCounts:
    """Counts trained networks by choice; a decision counts where it is active.

    Args:
        space: Whose networks are trained.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.array: npt.NDArray[np.int64] = np.zeros(
            (len(space.decisions), int(space.algebra.cardinalities.max())), dtype=np.int64
        )
        """``(D, C)``; entries beyond a decision's choices stay 0."""

    def add(self, genotype: Genotypes) -> None:
        """Counts one trained network, a row ``(D,)``."""
        active = np.flatnonzero(self._space.algebra.active(genotype[None])[0])
        self.array[active, genotype[active]] += 1

    def rows(self) -> tuple[ChoiceCount, ...]:
        """One row a decision, for the report."""
        return tuple(
            ChoiceCount(d.name, tuple(str(c) for c in d.choices), tuple(self.array[i, : len(d.choices)].tolist()))
            for i, d in enumerate(self._space.decisions)
        )
