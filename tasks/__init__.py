"""What models are for: data, training, and evaluators of quality."""

from .base import Evaluator, Progress, Task

__all__ = ["Evaluator", "Progress", "Task"]
