"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..history import History
from ..problem import Problem
from ..strategy import Proposal, Strategy
from ._candidates import feasible_pool


class RandomStrategy(Strategy):
    """Uniformly random architectures that were not seen yet.

    What the latency model says to be infeasible is proposed only where too little else is left.
    """

    name: ClassVar[str] = "random"

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        return Proposal(feasible_pool(problem, history, n, rng).genotypes[:n])
