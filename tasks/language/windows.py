"""Windows of tokens: drawn at random for training, cut from whole documents for scoring.

Shapes: B windows, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from ...search_spaces.sequence import PAD
from .prepared import Ids

if TYPE_CHECKING:
    import torch

SCORED_TOKENS = 4096
"""Tokens that are scored at once: what fits in caches; attention's work grows with their square within a window."""


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one step.

    Args:
        inputs: Ids ``(B, T)``.
        targets: The token after each ``(B, T)``; ``PAD`` where none is to be predicted.
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """Where a token is to be predicted ``(B, T)``."""
        return self.targets != PAD

    def to(self, device: torch.device) -> WindowBatch:
        """The batch on a device."""
        return WindowBatch(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class WindowPlan:
    """How many tokens are trained on, in windows of which length.

    Args:
        length: Tokens of a window.
        batch_size: Windows of a step, at ``length``.
        tokens_per_epoch: Of which an epoch is as many whole steps as fit.
        last_length: Tokens of a window in the last steps, of which a step then has fewer; None for ``length``.
        last_share: Share of the steps of the whole training that are the last ones.

    Raises:
        ConfigError: If a number is out of range.
    """

    length: int
    batch_size: int
    tokens_per_epoch: int
    last_length: int | None = None
    last_share: float = 0.1

    def __post_init__(self) -> None:
        step = self.length * self.batch_size
        _check("length", self.length, self.length >= 2, "from 2")
        _check(
            "tokens_per_epoch", self.tokens_per_epoch, self.tokens_per_epoch >= step, f"from {step}, a step's tokens"
        )
        _check("last_share", self.last_share, 0 <= self.last_share <= 1, "0 to 1")
        if self.last_length is not None:
            allowed = f"multiples of length={self.length} up to a step's {step} tokens, or null"
            fits = self.length <= self.last_length <= step and self.last_length % self.length == 0
            _check("last_length", self.last_length, fits, allowed)

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return self.last_length or self.length

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, whatever the windows' length."""
        return self.tokens_per_epoch // (self.length * self.batch_size)

    def shape(self, step: int, steps: int | None) -> tuple[int, int]:
        """Number of windows and tokens of each in a step (from 0).

        Args:
            step: Of the whole training.
            steps: Of the whole training, or None if unknown.
        """
        if self.last_length is not None and steps is not None and self.first_of_last(steps) <= step < steps:
            return self.length * self.batch_size // self.last_length, self.last_length
        return self.batch_size, self.length

    def first_of_last(self, steps: int) -> int:
        """The first of the last steps."""
        return steps - round(steps * self.last_share)


def drawn_windows(stream: Ids, count: int, length: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Windows ``(count, length + 1)`` from anywhere in a stream."""
    starts = rng.integers(0, len(stream) - length, size=count)
    found: npt.NDArray[np.int64] = stream[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return found


def scored_windows(documents: Sequence[Ids], length: int, count: int | None) -> list[Ids]:
    """Windows of at most ``length + 1`` tokens that together are all documents, each token predicted once; none
    reaches over the end of a document.

    Args:
        documents: Ids.
        length: Tokens that are predicted in a full window.
        count: So many, spread evenly; None for all.
    """
    windows = [ids[start : start + length + 1] for ids in documents for start in range(0, len(ids) - 1, length)]
    if count is None or count >= len(windows):
        return windows
    return [windows[i] for i in np.linspace(0, len(windows) - 1, count).round().astype(int).tolist()]


def scored_batches(windows: Sequence[Ids], tokens: int) -> Iterator[WindowBatch]:
    """All windows, short ones first, in batches of at most so many tokens (at least one window), filled up with
    ``PAD`` at the end, which what comes before it does not see."""
    order = sorted(windows, key=len)
    while order:
        count = next((n for n in range(1, len(order)) if (n + 1) * (len(order[n]) - 1) > tokens), len(order))
        chosen, order = order[:count], order[count:]
        filled = np.full((count, len(chosen[-1])), PAD, dtype=np.int64)
        for row, ids in zip(filled, chosen, strict=True):
            row[: len(ids)] = ids
        yield batch_of(filled)


def batch_of(windows: npt.NDArray[np.int64], targeted: npt.NDArray[np.bool_] | None = None) -> WindowBatch:
    """A batch of windows ``(B, T + 1)``.

    Args:
        windows: Ids.
        targeted: Which of them are to be predicted, likewise; None for all that are no ``PAD``.
    """
    import torch

    targets = windows if targeted is None else np.where(targeted, windows, PAD)
    return WindowBatch(
        torch.from_numpy(np.ascontiguousarray(windows[:, :-1])), torch.from_numpy(np.ascontiguousarray(targets[:, 1:]))
    )


def _check(name: str, value: float, valid: bool, allowed: str) -> None:
    if not valid:
        raise ConfigError("out of range", field=f"task.{name}", value=value, allowed=allowed)
