"""Quality without training: zero-cost proxies, combined by rank."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import ConfigError, TaskError
from ...records import Evaluation
from ...search_spaces import Architecture, SearchSpace
from ...search_spaces.variation import distinct
from ..base import Evaluator, Progress, Task
from ..train_evaluator import check_same_input

if TYPE_CHECKING:
    from .base import Proxy
    from .ranks import ReferenceRanks

FILE = "proxies.sqlite"
"""In the study's folder."""
MIN_REFERENCE = 4


class ProxyEvaluator(Evaluator):
    """Ranks architectures by zero-cost proxies: a second or so each, no training.

    The quality is the geometric mean, over the proxies, of the share of ``reference`` random networks that an
    architecture outranks (:class:`~gnomon.tasks.proxies.ranks.ReferenceRanks`), 0 to 1. It says nothing of the
    accuracy that a network reaches: the found ones are trained when the search is finalised.

    Args:
        space: Builds the networks.
        task: Gives the inputs.
        proxies: One or more; with one, its rank is the quality.
        inputs: ``task`` for examples of the train split, ``gaussian`` for noise with random labels.
        batch_size: Examples in a minibatch.
        repeats: Initialisations and minibatches over which scores are averaged.
        reference: Random networks of the space, drawn by the study's seed, against which all are ranked.
        threads: Torch threads; None leaves torch as it is.
    """

    name: ClassVar[str] = "proxy"

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        proxies: Sequence[Proxy],
        inputs: str = "task",
        batch_size: int = 64,
        repeats: int = 1,
        reference: int = 64,
        threads: int | None = 1,
    ) -> None:
        from .scorer import NetworkScorer

        if isinstance(reference, bool) or not isinstance(reference, int) or reference < MIN_REFERENCE:
            raise ConfigError(
                "too few", field="quality.reference", value=reference, allowed=f"{MIN_REFERENCE} networks or more"
            )
        check_same_input(space, task)
        self.space, self.task, self.reference = space, task, reference
        self._options: dict[str, Any] = {
            "inputs": inputs,
            "batch_size": batch_size,
            "repeats": repeats,
            "threads": threads,
        }
        self.scorer = NetworkScorer(space, task, list(proxies), **self._options)
        self._ranks: ReferenceRanks | None = None

    def prepare(self, folder: Path, *, seed: int, progress: Progress | None = None) -> None:
        """Scores the reference networks; what a killed run has scored is kept.

        Raises:
            TaskError: If the networks cannot be scored, or a proxy is -inf for all of them.
        """
        from .ranks import ReferenceRanks
        from .scorer import NetworkScorer

        scorer = NetworkScorer(self.space, self.task, self.scorer.proxies, store=folder / FILE, **self._options)
        rows = reference_rows(self.space, self.reference, seed)
        # No progress: it is in epochs and of a task's metric, and there is neither.
        self._ranks = ReferenceRanks(scorer.scores(rows, seed))

    def evaluate(self, architecture: Architecture, *, seed: int, progress: Progress | None = None) -> Evaluation:
        """The combined rank; metrics are the proxies' own scores, those of -inf left out and counted.

        Raises:
            TaskError: If :meth:`prepare` was not called before, or the network cannot be built or run.
        """
        if self._ranks is None:
            raise TaskError(
                "there are no reference networks yet", field="quality", value=self.name, hint="Call prepare first."
            )
        start = time.perf_counter()
        scores = self.scorer.score(architecture.config, seed).values
        quality = float(self._ranks.combined(scores[None])[0])
        metrics = {
            name: float(value) for name, value in zip(self.scorer.names, scores, strict=True) if math.isfinite(value)
        }
        metrics["degenerate"] = float(len(scores) - len(metrics))
        if progress is not None:
            progress(float(self.scorer.repeats), quality)
        return Evaluation(
            quality=quality,
            metrics=metrics,
            budget=float(self.scorer.repeats),
            budget_unit="minibatches",
            cost_s=max(time.perf_counter() - start, 1e-9),
            seed=seed,
        )

    def identity(self) -> dict[str, Any]:
        return {
            "evaluator": self.name,
            "proxies": self.scorer.settings(),
            "reference": self.reference,
            "scored": self.scorer.identity(),
            "task": self.task.identity(),
        }

    def cost_hint_s(self) -> float | None:
        """Of the space's reference network, or of a random one if none is named."""
        names = list(self.space.named)
        row = self.space.named_genotype(names[0]) if names else self.space.sample(1, np.random.default_rng(0))[0]
        start = time.perf_counter()
        self.scorer.score(self.space.config(row), 0)
        return time.perf_counter() - start

    def preparation_hint_s(self) -> float | None:
        cost = self.cost_hint_s()
        return None if cost is None else cost * self.reference


def reference_rows(space: SearchSpace, count: int, seed: int) -> Any:
    """Distinct random rows ``(M, D)``: all that there are in a small space; deterministic by seed."""
    rng = np.random.default_rng([seed, 0])
    return distinct(space, space.sample(8 * count, rng))[:count]
