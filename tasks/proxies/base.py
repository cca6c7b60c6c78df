"""The contract of a zero-cost proxy.

Shapes: B examples in a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import nn

DEGENERATE = -math.inf
"""The score of a network of which a proxy can say nothing: nothing flows through it, or its numbers overflow."""


@dataclass(frozen=True)
class Minibatch:
    """Examples at which a network is looked at.

    Args:
        inputs: ``(B, C, H, W)`` float32.
        labels: Classes ``(B,)``, 0 to K - 1.
    """

    inputs: torch.Tensor
    labels: torch.Tensor


class Proxy(ABC):
    """A figure of an untrained network, larger is better. Runs ``gnomon.testing.ProxySuite``.

    A proxy may change the network that it is given (its weights, its hooks); every proxy gets one of its own.
    """

    name: ClassVar[str]
    """In tables, metrics and stores: lower case, digits and ``_``."""
    batches: ClassVar[int] = 1
    """Minibatches that it wants."""
    needs_signal: ClassVar[bool] = True
    """Whether it looks at what flows through the network; if nothing of the input arrives, the score is -inf."""

    @abstractmethod
    def compute(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        """The score; what is not finite stands for a degenerate network. Deterministic under torch's seed.

        Args:
            model: Freshly initialised, in training mode (batch norm uses the minibatch).
            batches: At least :attr:`batches`, of one size.

        Raises:
            TaskError: If the network has nothing that this proxy looks at.
        """

    def score(self, model: nn.Module, batches: Sequence[Minibatch]) -> float:
        """:meth:`compute`, with -inf for everything that is not a number: never NaN, never +inf.

        Raises:
            TaskError: As :meth:`compute`, or if there are too few minibatches.
        """
        if len(batches) < self.batches:
            raise TaskError(
                "too few minibatches",
                field=f"{self.name}.batches",
                value=len(batches),
                allowed=f"{self.batches} or more",
            )
        value = float(self.compute(model.train(), batches))
        return value if math.isfinite(value) else DEGENERATE

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON: with them and the name, scores are comparable."""
        return {}


def responds(model: nn.Module, batch: Minibatch) -> bool:
    """Whether the outputs differ between the examples of a minibatch, and are finite: if not, nothing of the input
    arrives, or the network overflows."""
    import torch

    with torch.no_grad():
        outputs = model.train()(batch.inputs)
    return bool(torch.isfinite(outputs).all()) and bool((outputs != outputs[:1]).any())
