"""Problems on which strategies are tried: no training, no device, known answers.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from ..predictors import LatencyModel
from ..search.objectives import MnasNetReward, ParetoObjective
from ..search.problem import Problem
from ..search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload

FloatArray = npt.NDArray[np.float64]


class ToyCells(SearchSpace):
    """Stages of a width and an operator, and a kernel that matters only where there is a convolution.

    Args:
        stages: Of 4 widths x 3 operators each, with 2 kernels for two of the operators:
            20 ** stages architectures.
    """

    name = "toy_cells"

    def __init__(self, stages: int = 6) -> None:
        self.stages = stages
        decisions: list[Decision] = []
        for i in range(stages):
            decisions.append(Decision(f"width{i}", (8, 16, 24, 32), ordered=True))
            decisions.append(Decision(f"op{i}", ("skip", "depthwise", "conv")))
            active = {f"op{i}": ("depthwise", "conv")}
            decisions.append(Decision(f"kernel{i}", (3, 5), active_when=active, ordered=True))
        super().__init__(tuple(decisions), Workload(batch=1, input_shape=(3, 8, 8)))

    def arguments(self) -> dict[str, Any]:
        return {"stages": self.stages}

    def build(self, config: Mapping[str, Any]) -> Any:
        raise SpaceError("this space is for trying strategies; it has no networks", field="space", value=self.name)

    def costs(self, genotypes: Genotypes) -> Costs:
        work = self.work(genotypes).sum(axis=1)
        return Costs(parameters=10 * work, macs=1000 * work, cio=100 * work, peak_activation_bytes=400 * work)

    def work(self, genotypes: Genotypes) -> FloatArray:
        """Cost of each stage ``(N, stages)``, 0 for skips."""
        width, kernel = genotypes[:, 0::3].astype(np.float64), genotypes[:, 2::3].astype(np.float64)
        base = np.array([0.0, 1.0, 2.5])[genotypes[:, 1::3]]
        return np.asarray(base * (1 + width) * (1 + 0.6 * kernel))

    def quality(self, genotypes: Genotypes) -> FloatArray:
        """Late stages matter most, larger kernels help in every other stage only, a convolution is
        little better than a depthwise one, and two skips in a row hurt."""
        width, op, kernel = (genotypes[:, k::3] for k in range(3))
        helps = np.where(np.arange(self.stages) % 2, 0.4, -0.2)
        gain = np.array([0.0, 1.0, 1.2])[op] * np.sqrt(1.0 + width) + helps * kernel
        skips = (op[:, 1:] == 0) & (op[:, :-1] == 0)
        return np.asarray(50 + 4 * gain @ np.linspace(0.2, 1.8, self.stages) - 6 * skips.sum(axis=1))


class ToyLatency(LatencyModel):
    """1 ms and a tenth of the work, known to within 2 %."""

    def __init__(self, space: ToyCells) -> None:
        self.space = space

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        mean = 1.0 + 0.1 * self.space.work(genotypes).sum(axis=1)
        return mean, 0.02 * mean


class ToyRanking:
    """The quality of toy networks with noise: what a strategy may be warm-started with."""

    def __init__(self, noise: float = 4.0) -> None:
        self.noise = noise

    def quality(self, space: ToyCells, genotypes: Genotypes, seed: int) -> FloatArray:
        """``(N,)``."""
        return space.quality(genotypes) + self.noise * np.random.default_rng(seed).normal(size=len(genotypes))

    def settings(self) -> dict[str, Any]:
        """Constructor arguments as JSON."""
        return {"noise": self.noise}


def pareto_problem(stages: int = 6, limit_ms: float | None = 3.5) -> Problem:
    """Quality against latency, under a limit that about half of the architectures meet."""
    space = ToyCells(stages)
    return Problem(space, ParetoObjective(latency_ms=limit_ms), ToyLatency(space), limit_ms)


def scalar_problem(stages: int = 6, limit_ms: float = 3.5) -> Problem:
    """MnasNet's soft reward."""
    space = ToyCells(stages)
    return Problem(space, MnasNetReward(latency_ms=limit_ms), ToyLatency(space), limit_ms)


def three_way_problem(stages: int = 6) -> Problem:
    """Quality, latency and parameters, without a limit."""
    space = ToyCells(stages)
    return Problem(space, ParetoObjective(("quality", "latency_ms", "parameters")), ToyLatency(space))
