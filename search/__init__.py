"""The search itself: objectives, strategies, the ledger, the run loop, finalise and verify."""

from .history import History, Trial
from .objective import Objective
from .problem import Problem
from .strategy import Proposal, Strategy

__all__ = ["History", "Objective", "Problem", "Proposal", "Strategy", "Trial"]
