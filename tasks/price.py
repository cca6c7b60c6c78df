"""What a differentiable search pays for latency, or for any other predicted metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

Expected: TypeAlias = "Callable[[Sequence[torch.Tensor], np.random.Generator], torch.Tensor]"
"""The predicted metric of the networks that these probabilities draw (a scalar), with gradients."""

FORMS = ("penalty", "hinge")


@dataclass
class Price:
    """A term of the loss.

    ``penalty``: ``weight * value / scale``: each share of the scale costs the same (2001.06392: loss plus lambda times
    latency). ``hinge``: ``multiplier * max(0, value / scale - 1)``, where the scale is the limit and the multiplier
    grows while the limit is broken and falls while there is room (dual ascent): the search ends near it, whatever
    the task's loss is worth.

    Args:
        expected: The metric.
        form: See above.
        scale: In the metric's unit, positive.
        weight: Of the penalty; the multiplier's first value for the hinge.
        rate: By how much a step at twice the limit raises the multiplier.
    """

    expected: Expected
    form: str
    scale: float
    weight: float
    rate: float = 0.01

    def __post_init__(self) -> None:
        self.multiplier = self.weight

    def loss(self, probabilities: Sequence[torch.Tensor], rng: np.random.Generator) -> tuple[torch.Tensor, float]:
        """The term, and the metric itself."""
        value = self.expected(probabilities, rng)
        share = value / self.scale
        if self.form == "hinge":
            return self.multiplier * (share - 1.0).clamp_min(0.0), float(value.detach())
        return self.weight * share, float(value.detach())

    def update(self, value: float) -> None:
        """Adapts the multiplier after a step at which the metric was ``value``."""
        if self.form == "hinge":
            self.multiplier = max(0.0, self.multiplier + self.rate * (value / self.scale - 1.0))
