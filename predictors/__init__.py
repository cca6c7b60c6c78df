"""What a network will cost, from a few measurements, and how sure that is."""

from .base import LatencyModel, LatencyPredictor
from .quality import EnsembleQualityPredictor, QualityPredictor

__all__ = ["EnsembleQualityPredictor", "LatencyModel", "LatencyPredictor", "QualityPredictor"]
