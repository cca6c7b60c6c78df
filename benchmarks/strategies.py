"""Every search strategy, and optimisers of other libraries run directly, on recorded tables.

NAS-Bench-201 (CIFAR-100 accuracy) on three recorded devices that rank networks differently, and NAS-Bench-Macro
(CIFAR-10) against its recorded FLOPs. All get the same latency information, the table's own value of whatever they
ask for, and budgets count distinct evaluations. Two figures: the hypervolume of what was evaluated, as a share of the
true front's (reference point: worst accuracy and largest latency on that front), of a search for accuracy and latency;
and the best accuracy within a latency limit, of a search for that. The limit is a quarter of the networks.

A scalar strategy (``SCALAR``) makes one search for both figures: MnasNet's soft reward with the limit as its target,
or accuracy within the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from benchmarks._common import ROOT, main_with
from benchmarks._contestants import Book, optuna_directly, pymoo_nsga2
from gnomon.predictors import LatencyModel
from gnomon.records import ArchitectureTable
from gnomon.records.tables import help_nasbench201, hwnas360, nasbench_macro
from gnomon.search import Problem, Strategy
from gnomon.search.instantiate import instantiate
from gnomon.search.objective import Objective
from gnomon.search.objectives import MnasNetReward, ParetoObjective
from gnomon.search.pareto import hypervolume, non_dominated
from gnomon.search_spaces import Genotypes, SearchSpace
from gnomon.testing.simulation import simulate

FloatArray = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["hypervolume", "accuracy"]
KINDS: tuple[Kind, ...] = ("hypervolume", "accuracy")

BATCH = 10
GRID = (20, 50, 100, 150, 200, 250, 300)
"""Distinct evaluations after which a search is looked at."""
SEEDS, QUICK_SEEDS = tuple(range(10)), (0, 1)
SLOW_SEEDS, SLOW_EVALUATIONS = (0, 1, 2), 100
"""Of Gaussian processes that take seconds for each network they propose."""
LIMIT_QUANTILE = 0.25

STRATEGIES = (
    "nsga2",
    "aging_evolution",
    "random",
    "tpe",
    "optuna_nsga2",
    "optuna_nsga3",
    "qmc",
    "gp",
    "botorch",
    "controller",
    "integer_program",
    "hat_evolution",
    "cmaes",
)
"""Ours, by their name in ``conf/strategy``, with the settings that ship."""
SLOW = ("gp", "botorch", "direct_optuna_gp")
SCALAR: Mapping[str, Literal["reward", "limit"]] = {
    "hat_evolution": "limit",
    "cmaes": "reward",
    "controller": "reward",
}
"""Strategies for one value, and which: MnasNet's soft reward, or accuracy within the limit."""

DIRECT: Mapping[str, Callable[[Book, int], None]] = {
    "direct_optuna_tpe": partial(optuna_directly, "TPESampler", {}),
    "direct_optuna_nsga2": partial(optuna_directly, "NSGAIISampler", {"population_size": 20}),
    "direct_optuna_gp": partial(optuna_directly, "GPSampler", {}),
    "direct_pymoo_nsga2": partial(pymoo_nsga2, 20),
}
"""Other libraries. Both NSGA-II with 20 members: with their default sizes most of the budget is the random start."""


# ---- Tables ------------------------------------------------------------------------------------


class Dense:
    """A column of a table that holds a whole space, looked up by genes."""

    def __init__(self, table: ArchitectureTable, column: str) -> None:
        self._values = np.full([len(each.choices) for each in table.space.decisions], np.nan)
        self._values[tuple(table.genotypes.T)] = table.columns[column]

    def __call__(self, genotypes: Genotypes) -> FloatArray:
        """Recorded values ``(N,)`` of rows ``(N, D)``."""
        return np.asarray(self._values[tuple(genotypes.T)])


class RecordedLatency(LatencyModel):
    """The table's own latencies, without error."""

    def __init__(self, recorded: Dense) -> None:
        self._recorded = recorded

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        return self._recorded(genotypes), np.zeros(len(genotypes))


@dataclass(frozen=True)
class Ground:
    """One device of one data set.

    Args:
        data: Set of the table, as in the metrics' names.
        device: Column of latencies.
        space: What is searched.
        genotypes: All of it ``(N, D)``.
        accuracy, latency: Recorded.
        limit: On latency, which a quarter of the networks meets.
    """

    data: str
    device: str
    space: SearchSpace
    genotypes: Genotypes
    accuracy: Dense
    latency: Dense
    limit: float

    def losses(self, rows: Genotypes) -> FloatArray:
        """Accuracy, negated, and latency ``(N, 2)``."""
        return np.stack([-self.accuracy(rows), self.latency(rows)], axis=1)

    def problem(self, kind: Literal["pareto", "limit", "reward"]) -> Problem:
        """Accuracy and latency; accuracy within the limit; or MnasNet's soft reward."""
        objectives: dict[str, Callable[[], Objective]] = {
            "pareto": ParetoObjective,
            "limit": lambda: ParetoObjective(("quality",), latency_ms=self.limit),
            "reward": lambda: MnasNetReward(latency_ms=self.limit),
        }
        limit = self.limit if kind != "pareto" else None
        return Problem(self.space, objectives[kind](), RecordedLatency(self.latency), limit)


@cache
def grounds(data: str) -> tuple[Ground, ...]:
    """The devices of a data set."""
    latency, accuracy, columns = _TABLES[data]()
    recorded = Dense(accuracy, "accuracy")
    return tuple(
        Ground(
            data,
            device,
            latency.space,
            latency.genotypes,
            recorded,
            Dense(latency, column),
            float(np.quantile(latency.columns[column], LIMIT_QUANTILE)),
        )
        for device, column in columns.items()
    )


def _nasbench201() -> tuple[ArchitectureTable, ArchitectureTable, dict[str, str]]:
    devices = ("raspi4", "fpga", "titan_rtx_256")
    return help_nasbench201(devices=devices), hwnas360(), {device: device for device in devices}


def _nasbench_macro() -> tuple[ArchitectureTable, ArchitectureTable, dict[str, str]]:
    table = nasbench_macro()
    return table, table, {"flops": "flops"}


_TABLES = {"nasbench201": _nasbench201, "nasbench_macro": _nasbench_macro}


# ---- Searching ---------------------------------------------------------------------------------


def evaluated(name: str, problem: Problem, ground: Ground, evaluations: int, seed: int) -> Genotypes:
    """The distinct rows that a search paid for ``(evaluations, D)``, in order."""
    if name in DIRECT:
        book = Book(problem, ground.accuracy, evaluations)
        DIRECT[name](book, seed)
        return book.first()
    make, quality = partial(make_strategy, name), ground.accuracy
    # A strategy that lives proposes as one made anew at every step does (its conformance suite), only sooner.
    search = simulate(make, problem, quality, evaluations=evaluations, batch=BATCH, seed=seed, rebuild=False)
    rows = search.history.genotypes
    if len(rows) != evaluations:
        raise SystemExit(f"{name} made {len(rows)} distinct evaluations instead of {evaluations}")
    return rows


def make_strategy(name: str) -> Strategy:
    """As it ships."""
    strategy: Strategy = instantiate(OmegaConf.load(Path(ROOT) / "conf" / "strategy" / f"{name}.yaml"), "strategy")
    return strategy


def curves(
    name: str, ground: Ground, kinds: Sequence[Kind], evaluations: int, seed: int
) -> tuple[dict[Kind, FloatArray], float]:
    """Each figure after the evaluations of the grid, and seconds of a search."""
    grid = [count for count in GRID if count <= evaluations]
    found: dict[Kind, FloatArray] = {}
    start = time.perf_counter()
    if name in SCALAR:
        rows = evaluated(name, ground.problem(SCALAR[name]), ground, evaluations, seed)
        found = {kind: FIGURES[kind](ground, rows, grid) for kind in kinds}
        return found, time.perf_counter() - start
    for kind in kinds:
        problem = ground.problem("pareto" if kind == "hypervolume" else "limit")
        found[kind] = FIGURES[kind](ground, evaluated(name, problem, ground, evaluations, seed), grid)
    return found, (time.perf_counter() - start) / len(kinds)


def hypervolumes(ground: Ground, rows: Genotypes, grid: Sequence[int]) -> FloatArray:
    """Of the first rows, as shares of the true front's."""
    everything = ground.losses(ground.genotypes)
    front = everything[non_dominated(everything)]
    reference = front.max(axis=0)
    losses, whole = ground.losses(rows), hypervolume(front, reference)
    return np.array([hypervolume(losses[:count], reference) / whole for count in grid])


def best_accuracies(ground: Ground, rows: Genotypes, grid: Sequence[int]) -> FloatArray:
    """Best of the first rows within the limit; 0 while there is none."""
    accuracy = np.where(ground.latency(rows) <= ground.limit, ground.accuracy(rows), 0.0)
    return np.array([accuracy[:count].max() for count in grid])


FIGURES: Mapping[Kind, Callable[[Ground, Genotypes, Sequence[int]], FloatArray]] = {
    "hypervolume": hypervolumes,
    "accuracy": best_accuracies,
}


# ---- Figures -----------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> dict[str, float]:
    """Hypervolume and best feasible accuracy of every strategy against distinct evaluations, on recorded tables."""
    metrics: dict[str, float] = {}
    for data in options.data:
        metrics |= truth(data)
        for name in options.only or (*STRATEGIES, *DIRECT):
            metrics |= figures(name, data, options)
    metrics = kept(options) | metrics
    if options.plot and not options.quick:
        for data in options.data:
            draw(metrics, data)
    return metrics


def kept(options: argparse.Namespace) -> dict[str, float]:
    """With ``--only``, what the JSON file holds of the other strategies."""
    if not options.only or options.quick or options.json is None or not options.json.is_file():
        return {}
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    return {
        key: float(value)
        for key, value in found.items()
        if key.split(".")[0] in _TABLES and isinstance(value, (int, float))
    }


def truth(data: str) -> dict[str, float]:
    """What can be had."""
    best = {
        each.device: float(best_accuracies(each, each.genotypes, [len(each.genotypes)])[0]) for each in grounds(data)
    }
    metrics = {f"{data}.accuracy.possible.{device}": accuracy for device, accuracy in best.items()}
    metrics[f"{data}.accuracy.possible.mean"] = float(np.mean(list(best.values())))
    return metrics | {f"{data}.limit.{each.device}": each.limit for each in grounds(data)}


def figures(name: str, data: str, options: argparse.Namespace) -> dict[str, float]:
    """Of one strategy: means over seeds, and over devices, with standard errors."""
    evaluations = min(options.evaluations, SLOW_EVALUATIONS) if name in SLOW else options.evaluations
    seeds = QUICK_SEEDS if options.quick else SLOW_SEEDS if name in SLOW else SEEDS
    places = grounds(data)
    found: dict[Kind, list[list[FloatArray]]] = {kind: [] for kind in options.kinds}
    seconds = []
    for place in places:
        runs = [curves(name, place, options.kinds, evaluations, seed) for seed in seeds]
        seconds += [took for _, took in runs]
        for kind in options.kinds:
            found[kind].append([curve[kind] for curve, _ in runs])
        print(f"{data} {place.device} {name}: {np.mean(seconds):.2f} s a search", file=sys.stderr, flush=True)
    metrics = {f"{data}.seconds.{name}": float(np.mean(seconds))}
    for kind, shares in found.items():
        table = np.array(shares)  # devices, seeds, grid
        for index, count in enumerate(each for each in GRID if each <= evaluations):
            key = f"{data}.{kind}.{name}.{count}"
            metrics |= {
                f"{key}.{place.device}": float(row[:, index].mean()) for place, row in zip(places, table, strict=True)
            }
            metrics[f"{key}.mean"] = float(table[:, :, index].mean())
            metrics[f"{key}.standard_error"] = float(table[:, :, index].mean(axis=0).std(ddof=1) / np.sqrt(len(seeds)))
    return metrics


PICTURES = ROOT / "docs" / "images"
DRAWN = {
    "nsga2": "nsga2 (default)",
    "botorch": "botorch",
    "aging_evolution": "aging_evolution",
    "random": "random",
    "direct_optuna_tpe": "Optuna TPE",
    "direct_optuna_nsga2": "Optuna NSGA-II",
    "direct_optuna_gp": "Optuna GP",
    "direct_pymoo_nsga2": "pymoo NSGA-II",
}
"""What a picture shows, of what was run; the tables show all."""


def draw(metrics: Mapping[str, float], data: str) -> None:
    """Hypervolume that a search lacks of the true front's, against evaluations; other libraries are dashed."""
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        for number, (name, label) in enumerate(DRAWN.items()):
            keys = {count: f"{data}.hypervolume.{name}.{count}.mean" for count in GRID}
            points = {count: 1 - metrics[key] for count, key in keys.items() if key in metrics}
            if points:
                kind, width = ("--" if name in DIRECT else "-"), (3.0 if name == "nsga2" else 1.6)
                axes.plot([*points], [*points.values()], kind, color=f"C{number}", linewidth=width, label=label)
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
        axes.set_xlabel("distinct evaluations")
        axes.set_ylabel("hypervolume lacking")
        axes.legend(ncols=2, fontsize="small")
        style.save(figure, PICTURES / f"strategies_{data}.png")


def parser() -> argparse.ArgumentParser:
    """The options of its own."""
    result = argparse.ArgumentParser(description=run.__doc__)
    names = (*STRATEGIES, *DIRECT)
    result.add_argument(
        "--only",
        nargs="+",
        choices=names,
        metavar="NAME",
        help="these strategies; the JSON file keeps the others' figures",
    )
    result.add_argument("--data", nargs="+", choices=tuple(_TABLES), default=list(_TABLES), help="these data sets")
    result.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="these figures")
    result.add_argument("--evaluations", type=int, default=GRID[-1], choices=GRID, help="distinct ones of a search")
    result.add_argument("--no-plot", dest="plot", action="store_false", help="draw no pictures")
    return result


if __name__ == "__main__":
    main_with("strategies", run, parser(), seeds=SEEDS)
