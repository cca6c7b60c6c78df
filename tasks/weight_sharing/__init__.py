"""How a supernet is trained: which networks at each step, taught by what."""

from .rule import Lesson, Schedule, TrainingRule

__all__ = ["Lesson", "Schedule", "TrainingRule"]
