"""Conformance suites: subclass one, give it a fixture, and pytest runs the contract against
your implementation."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "CurveRegressorSuite": ".curve_regressor_suite",
    "DeviceSuite": ".device_suite",
    "ElasticSuite": ".elastic_suite",
    "EvaluatorSuite": ".evaluator_suite",
    "LatencyPredictorSuite": ".latency_predictor_suite",
    "LanguageSpaceSuite": ".language_space_suite",
    "MixerSuite": ".mixer_suite",
    "ProxySuite": ".proxy_suite",
    "QualityPredictorSuite": ".quality_predictor_suite",
    "RelaxedSuite": ".relaxed_suite",
    "SearchSpaceSuite": ".search_space_suite",
    "SequenceSpaceSuite": ".sequence_space_suite",
    "simulate": ".simulation",
    "StrategySuite": ".strategy_suite",
    "TaskSuite": ".task_suite",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
