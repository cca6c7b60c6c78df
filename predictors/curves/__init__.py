"""Where a training will end, from its first epochs."""

from .features import curve_features
from .forest import RandomForest
from .least_squares import LeastSquares
from .predictor import CurvePredictor
from .regressor import CurveRegressor
from .support_vectors import NuSupportVectors

__all__ = ["CurvePredictor", "CurveRegressor", "LeastSquares", "NuSupportVectors", "RandomForest", "curve_features"]
