"""HELP: latency prediction by meta-learning over devices (Lee et al. 2021, 2106.08630)."""

from .meta_learning import MetaProgress
from .predictor import HelpPredictor
from .progress import progress_bar

__all__ = ["HelpPredictor", "MetaProgress", "progress_bar"]
