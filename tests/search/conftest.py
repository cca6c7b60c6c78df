"""A search small enough to run in milliseconds: 5 decisions, an exact latency model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.predictors import LatencyModel
from gnomon.records import Evaluation
from gnomon.search import Problem
from gnomon.search.ledger import Ledger
from gnomon.search.objectives import ParetoObjective
from gnomon.search.setup import StudySettings
from gnomon.search.strategies.random import RandomStrategy
from gnomon.search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload


class ToySpace(SearchSpace):
    """Ternary decisions, and one more that is active only if the first is not 0: 567 architectures."""

    name = "toy"

    def __init__(self, depth: int = 5) -> None:
        self.depth = depth
        decisions = [Decision(f"x{i}", (0, 1, 2), ordered=True) for i in range(depth)]
        decisions.append(Decision("y", ("a", "b", "c"), active_when={"x0": (1, 2)}))
        super().__init__(tuple(decisions), Workload((1, 4, 4)))

    def arguments(self) -> dict[str, Any]:
        return {"depth": self.depth}

    def build(self, config: Mapping[str, Any]) -> Any:
        raise NotImplementedError("nothing here is trained")

    def costs(self, genotypes: Genotypes) -> Costs:
        total = genotypes.sum(axis=1).astype(float)
        return Costs(total, total, total, total)


class ToyLatency(LatencyModel):
    """1 ms plus the sum of the genes, known to within 0.1 ms."""

    def predict(self, genotypes: Genotypes) -> tuple[np.ndarray, np.ndarray]:
        return 1.0 + genotypes.sum(axis=1), np.full(len(genotypes), 0.1)


def toy_quality(key: str) -> float:
    genes = [int(g) for g in key.split(".")]
    return 10.0 * sum(genes) - sum((g - 1) ** 2 for g in genes) + 0.1 * genes[0]


class ToyEvaluator:
    """Deterministic quality; ``fail`` and ``before`` let tests misbehave."""

    has_weights = False
    observes = False

    def __init__(self) -> None:
        self.evaluated: list[str] = []
        self.before: Callable[[str], None] = lambda key: None

    def evaluate(self, architecture: Any, *, seed: int, progress: Any = None) -> Evaluation:
        self.before(architecture.key)
        self.evaluated.append(architecture.key)
        return Evaluation(toy_quality(architecture.key), seed=seed)


@dataclass
class ToyComponents:
    space: ToySpace
    evaluator: ToyEvaluator
    strategy: Any
    study: StudySettings


@pytest.fixture
def space() -> ToySpace:
    return ToySpace()


@pytest.fixture
def problem(space: ToySpace) -> Problem:
    return Problem(space, ParetoObjective(latency_ms=8.0), ToyLatency(), 8.0)


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.sqlite" if request.param == "sqlite" else f"{tmp_path}/ledger.journal"


@pytest.fixture
def open_ledger(storage: str, space: ToySpace, problem: Problem) -> Callable[[], Ledger]:
    """Opens the same ledger anew each time, as another process would."""

    def open_() -> Ledger:
        ledger = Ledger(storage, "toy", space)
        ledger.create(problem.objective, {"space": space.spec()})
        return ledger

    return open_


@pytest.fixture
def components(space: ToySpace, tmp_path: Path) -> ToyComponents:
    study = StudySettings("toy", str(tmp_path), "", "", seed=3, evaluations=20, batch=4)
    return ToyComponents(space, ToyEvaluator(), RandomStrategy(), study)
