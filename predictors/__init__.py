"""What a network will cost, from a few measurements, and how sure that is."""

from .analytic import AnalyticPredictor
from .base import LatencyModel, LatencyPredictor
from .bayesian_linear import BayesianLinearPredictor
from .bundle import Provenance, SavableLatencyModel, load_model, save_model
from .evaluate import PredictorScores, evaluate, leave_one_out
from .gnomon import GnomonPredictor
from .predictor_bundle import Learnt, load_state, read_learnt, save_predictor
from .quality import EnsembleQualityPredictor, QualityPredictor

__all__ = [
    "AnalyticPredictor",
    "BayesianLinearPredictor",
    "EnsembleQualityPredictor",
    "GnomonPredictor",
    "LatencyModel",
    "LatencyPredictor",
    "Learnt",
    "PredictorScores",
    "Provenance",
    "QualityPredictor",
    "SavableLatencyModel",
    "evaluate",
    "leave_one_out",
    "load_model",
    "load_state",
    "read_learnt",
    "save_model",
    "save_predictor",
]
