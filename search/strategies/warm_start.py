"""Warm start: what a cheap figure promises most is evaluated first, then another strategy takes over.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ...errors import StrategyError
from ...search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from ...search_spaces.variation import distinct
from ..history import History
from ..instantiate import instantiate
from ..pareto import best
from ..problem import Problem
from ..strategy import Proposal, Strategy, TrainedStrategy
from ._candidates import feasible_pool, known_hashes

FloatArray = npt.NDArray[np.float64]


@runtime_checkable
class CheapQuality(Protocol):
    """A figure of architectures that costs little, such as :class:`gnomon.tasks.proxies.ranking.ProxyRanking`."""

    def quality(self, space: SearchSpace, genotypes: Genotypes, seed: int) -> FloatArray:
        """``(N,)``, finite, larger is better; deterministic by seed."""
        ...

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON."""
        ...


class WarmStart(Strategy):
    """Begins another strategy with the networks that zero-cost proxies rank best (Abdelfattah et al. 2021, 2101.08134,
    Section 5: warm-up), from cheap to dear.

    Of ``candidates`` random feasible architectures, those are evaluated first that the objective would choose if the
    cheap figure were the quality: with several objectives, front by front. They are the first trials of ``strategy``,
    which therefore draws no random population of its own where it wants no more than ``initial``.

    The candidates are ranked once, at the first step; the order is kept in the ledger.

    Args:
        strategy: What takes over; any that looks at the history alone, such as aging evolution or the default. Like
            the next one also as what its settings say: constructor arguments with a ``_target_``.
        ranking: The cheap figure.
        candidates: Architectures that are ranked.
        initial: Of these, architectures that are evaluated; set the strategy's own number to as many.
    """

    name: ClassVar[str] = "warm_start"

    def __init__(
        self,
        strategy: Strategy | Mapping[str, Any],
        ranking: CheapQuality | Mapping[str, Any],
        candidates: int = 200,
        initial: int = 20,
    ) -> None:
        strategy, ranking = _made(strategy, "strategy.strategy"), _made(ranking, "strategy.ranking")
        if not isinstance(strategy, Strategy) or isinstance(strategy, TrainedStrategy):
            raise StrategyError(
                "cannot be begun with evaluations",
                field="strategy.strategy",
                value=getattr(strategy, "name", strategy),
                allowed="a strategy that proposes from a history",
            )
        if not isinstance(ranking, CheapQuality):
            raise StrategyError(
                "ranks nothing",
                field="strategy.ranking",
                value=ranking,
                allowed="for example gnomon.tasks.proxies.ranking.ProxyRanking",
            )
        if initial < 1:
            raise StrategyError("too small", field="strategy.initial", value=initial, allowed="1 or more")
        if candidates < initial:
            raise StrategyError(
                "too few to choose from", field="strategy.candidates", value=candidates, allowed=f"{initial} or more"
            )
        self.strategy, self.ranking = strategy, ranking
        self.candidates, self.initial = candidates, initial
        self.max_objectives = strategy.max_objectives  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        return {
            "strategy": {"_target_": _path(self.strategy), **self.strategy.settings()},
            "ranking": {"_target_": _path(self.ranking), **self.ranking.settings()},
            "candidates": self.candidates,
            "initial": self.initial,
        }

    def check(self, space: SearchSpace) -> None:
        """See :meth:`Strategy.check`: the strategy that goes on must be able to."""
        self.strategy.check(space)

    def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
        """See :meth:`Strategy.propose`.

        Raises:
            GnomonError: What the ranking or the strategy raises.
        """
        state = dict(history.state or {})
        if "queue" not in state:
            state["queue"] = self._ranked(problem, history, rng)
        missing = self.initial - len(history.trials)
        if missing > 0:
            rows = self._unseen(problem, history, state["queue"])[: min(n, missing)]
            if len(rows):
                return Proposal(rows, state)
        proposal = self.strategy.propose(problem, replace(history, state=state.get("inner")), n, rng)
        return replace(proposal, state={**state, "inner": proposal.state})

    def _ranked(self, problem: Problem, history: History, rng: np.random.Generator) -> list[str]:
        """Keys of the best candidates, the most promising first."""
        rows = feasible_pool(problem, history, self.candidates, rng).genotypes[: self.candidates]
        if not len(rows):
            return []
        quality = np.asarray(self.ranking.quality(problem.space, rows, int(rng.integers(2**31))), dtype=np.float64)
        if quality.shape != (len(rows),) or not np.isfinite(quality).all():
            raise StrategyError(
                "gave no finite figure for every architecture",
                field="strategy.ranking",
                value=f"shape {quality.shape}",
                allowed=f"({len(rows)},), finite",
            )
        order = best(problem.losses(rows, quality), problem.violation(rows), self.initial)
        return problem.space.keys(rows[order])

    @staticmethod
    def _unseen(problem: Problem, history: History, queue: list[str]) -> Genotypes:
        space = problem.space
        if not queue:
            return np.zeros((0, len(space.decisions)), dtype=GENE_DTYPE)
        rows = np.stack([space.algebra.from_key(key) for key in queue])
        return distinct(space, rows, known_hashes(space, history))


def _made(value: Any, field: str) -> Any:
    """What a mapping with a ``_target_`` describes; anything else as it is."""
    return instantiate(value, field) if isinstance(value, Mapping) else value


def _path(made: object) -> str:
    return f"{type(made).__module__}.{type(made).__qualname__}"
