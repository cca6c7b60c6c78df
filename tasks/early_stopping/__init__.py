"""Stopping trainings that cannot win: a rule, Optuna pruners, and an evaluator."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .rule import Ended, Outlook, StoppingRule

if TYPE_CHECKING:
    from .evaluator import EarlyStoppedTrainEvaluator
    from .optuna_pruner import CurvePruner, FalseStops, HyperbandCurvePruner, false_stops

_LAZY = {
    "CurvePruner": ".optuna_pruner",
    "EarlyStoppedTrainEvaluator": ".evaluator",
    "FalseStops": ".optuna_pruner",
    "HyperbandCurvePruner": ".optuna_pruner",
    "false_stops": ".optuna_pruner",
}

__all__ = [
    "CurvePruner",
    "EarlyStoppedTrainEvaluator",
    "Ended",
    "FalseStops",
    "HyperbandCurvePruner",
    "Outlook",
    "StoppingRule",
    "false_stops",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
