"""What a strategy may know: finished and pending trials, and its own last state.

Shapes: N trials, D decisions, M objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..search_spaces import GENE_DTYPE, Genotypes

FloatArray = npt.NDArray[np.float64]
TrialState: TypeAlias = Literal["pending", "complete", "failed"]


@dataclass(frozen=True)
class Trial:
    """One proposed architecture.

    Args:
        number: Position in the ledger.
        genotype: Canonical row ``(D,)``.
        losses: Objective values to be minimised; only when complete.
        violation: Of the latency limit; at most 0 is feasible.
        attributes: The strategy's own JSON for this row, as it was proposed.
        duplicate_of: Number of the evaluated trial with the same genotype; its values were
            copied and nothing was spent.
        stopped_at: Budget after which its training was stopped early; its quality is then predicted.
    """

    number: int
    genotype: Genotypes
    state: TrialState
    quality: float | None = None
    losses: tuple[float, ...] | None = None
    violation: float = 0.0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    duplicate_of: int | None = None
    stopped_at: float | None = None


@dataclass(frozen=True)
class History:
    """All trials in order of number, with array views of the complete ones.

    Args:
        state: What the strategy returned with its last proposal, or None.
        step: Proposals committed so far; with the run's seed it seeds the next one.
    """

    trials: tuple[Trial, ...]
    state: Mapping[str, Any] | None = None
    step: int = 0

    @cached_property
    def complete(self) -> tuple[Trial, ...]:
        """Complete trials, copies of duplicates included."""
        return tuple(t for t in self.trials if t.state == "complete")

    @cached_property
    def evaluated(self) -> tuple[Trial, ...]:
        """Complete trials without duplicates: what was paid for."""
        return tuple(t for t in self.complete if t.duplicate_of is None)

    @cached_property
    def genotypes(self) -> Genotypes:
        """Of the evaluated trials ``(N, D)``."""
        return _rows(self.evaluated)

    @cached_property
    def quality(self) -> FloatArray:
        """Of the evaluated trials ``(N,)``."""
        return np.array([t.quality for t in self.evaluated], dtype=np.float64)

    @cached_property
    def losses(self) -> FloatArray:
        """Of the evaluated trials ``(N, M)``, to be minimised."""
        return np.array([t.losses for t in self.evaluated], dtype=np.float64)

    @cached_property
    def violation(self) -> FloatArray:
        """Of the evaluated trials ``(N,)``."""
        return np.array([t.violation for t in self.evaluated], dtype=np.float64)

    @cached_property
    def known(self) -> Genotypes:
        """Every row that must not be evaluated again: complete, pending and failed ``(N, D)``."""
        return _rows(self.trials)


def _rows(trials: tuple[Trial, ...]) -> Genotypes:
    if not trials:
        return np.zeros((0, 0), dtype=GENE_DTYPE)
    return np.stack([t.genotype for t in trials])
