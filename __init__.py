"""Gnomon: hardware-aware neural architecture search from a few measurements.

The public names are loaded on first use (PEP 562), so that ``import gnomon`` is instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Decision": ".search_spaces",
    "Device": ".devices",
    "Evaluator": ".tasks",
    "GnomonError": ".errors",
    "LatencyModel": ".predictors",
    "LatencyPredictor": ".predictors",
    "Measurement": ".records",
    "Objective": ".search",
    "Proposal": ".search",
    "Protocol": ".devices",
    "SearchSpace": ".search_spaces",
    "Strategy": ".search",
    "Task": ".tasks",
    "Workload": ".search_spaces",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
