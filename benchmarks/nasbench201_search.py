"""Search NAS-Bench-201 for CIFAR-100 accuracy and latency on devices that HELP measured.

Every strategy gets 300 distinct accuracy evaluations, in batches of 10, and the same latency
model, adapted on 10 measurements. The score is the hypervolume of what was evaluated, by the
tables' own accuracy and latency, from the worst accuracy and the largest latency on the true
front; 1 is the true front.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from gnomon.predictors import GnomonPredictor
from gnomon.records import ArchitectureTable
from gnomon.records.tables import help_nasbench201, hwnas360
from gnomon.search import Problem, Strategy
from gnomon.search.instantiate import instantiate
from gnomon.search.objectives import ParetoObjective
from gnomon.search.pareto import hypervolume, non_dominated
from gnomon.search_spaces import Genotypes
from gnomon.testing.simulation import simulate

from ._common import ROOT, main

DEVICES = ("raspi4", "fpga", "titan_rtx_256")
STRATEGIES = ("nsga2", "random", "aging_evolution", "optuna_nsga2", "tpe")
EVALUATIONS, BATCH, MEASUREMENTS = 300, 10, 10
SEEDS, QUICK_SEEDS = tuple(range(10)), (0, 1)

FloatArray = npt.NDArray[np.float64]


def run(quick: bool) -> dict[str, float]:
    """Hypervolume of 300 evaluations on NAS-Bench-201, as a share of the true front's."""
    latency, accuracy = help_nasbench201(devices=DEVICES), hwnas360()
    found: dict[tuple[str, str], list[float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in STRATEGIES}
    for device in DEVICES:
        losses = true_losses(accuracy.genotypes, latency, accuracy, device)
        for seed in QUICK_SEEDS if quick else SEEDS:
            problem = adapted_problem(latency, device, seed)
            for name in STRATEGIES:
                start = time.perf_counter()
                rows = evaluated(name, problem, accuracy, seed)
                seconds[name].append(time.perf_counter() - start)
                share = normalised(true_losses(rows, latency, accuracy, device), losses)
                found.setdefault((name, device), []).append(share)
    return summary(found, seconds)


def adapted_problem(latency: ArchitectureTable, device: str, seed: int) -> Problem:
    """Accuracy against latency, of which ten recorded measurements are known."""
    predictor = GnomonPredictor(latency.space)
    references = predictor.references(MEASUREMENTS, seed=seed)
    model = predictor.adapt(references, latency.lookup(references, device))
    return Problem(latency.space, ParetoObjective(), model)


def make_strategy(name: str) -> Strategy:
    """As it ships."""
    strategy: Strategy = instantiate(OmegaConf.load(Path(ROOT) / "conf" / "strategy" / f"{name}.yaml"), "strategy")
    return strategy


def evaluated(name: str, problem: Problem, accuracy: ArchitectureTable, seed: int) -> Genotypes:
    """The distinct rows that a search paid for."""
    search = simulate(
        lambda: make_strategy(name),
        problem,
        lambda rows: accuracy.lookup(rows, "accuracy"),
        evaluations=EVALUATIONS,
        batch=BATCH,
        seed=seed,
    )
    rows = search.history.genotypes
    if len(rows) != EVALUATIONS:
        raise SystemExit(f"{name} made {len(rows)} distinct evaluations instead of {EVALUATIONS}")
    return rows


def true_losses(rows: Genotypes, latency: ArchitectureTable, accuracy: ArchitectureTable, device: str) -> FloatArray:
    """Recorded accuracy, negated, and recorded latency ``(N, 2)``."""
    return np.stack([-accuracy.lookup(rows, "accuracy"), latency.lookup(rows, device)], axis=1)


def normalised(found: FloatArray, everything: FloatArray) -> float:
    """Hypervolume of ``found`` as a share of the true front's."""
    front = everything[non_dominated(everything)]
    reference = front.max(axis=0)
    return hypervolume(found, reference) / hypervolume(front, reference)


def summary(found: dict[tuple[str, str], list[float]], seconds: dict[str, list[float]]) -> dict[str, float]:
    """Means over seeds, their standard errors, and means over devices."""
    metrics: dict[str, float] = {}
    for name in STRATEGIES:
        shares = np.array([found[name, device] for device in DEVICES])
        for device, row in zip(DEVICES, shares, strict=True):
            metrics[f"hypervolume.{name}.{device}"] = float(row.mean())
        metrics[f"hypervolume.{name}.mean"] = float(shares.mean())
        metrics[f"hypervolume.{name}.worst"] = float(shares.min())
        metrics[f"hypervolume.{name}.standard_error"] = float(
            shares.mean(axis=0).std(ddof=1) / np.sqrt(shares.shape[1])
        )
        metrics[f"seconds_per_search.{name}"] = float(np.mean(seconds[name]))
    return metrics | {"evaluations": EVALUATIONS, "measurements": MEASUREMENTS, "batch": BATCH}


if __name__ == "__main__":
    main("nasbench201_search", run, seeds=SEEDS)
