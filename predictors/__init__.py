"""What a network will cost, from a few measurements, and how sure that is."""

from .analytic import AnalyticPredictor
from .base import LatencyModel, LatencyPredictor
from .bayesian_linear import BayesianLinearPredictor
from .evaluate import PredictorScores, evaluate, leave_one_out
from .quality import EnsembleQualityPredictor, QualityPredictor

__all__ = [
    "AnalyticPredictor",
    "BayesianLinearPredictor",
    "EnsembleQualityPredictor",
    "LatencyModel",
    "LatencyPredictor",
    "PredictorScores",
    "QualityPredictor",
    "evaluate",
    "leave_one_out",
]
