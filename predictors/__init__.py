"""What a network will cost, from a few measurements, and how sure that is."""

from .base import LatencyModel, LatencyPredictor

__all__ = ["LatencyModel", "LatencyPredictor"]
