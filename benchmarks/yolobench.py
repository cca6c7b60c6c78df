"""How much of the true Pareto fronts of YOLOBench's detectors strategies and proxies find.

572 detectors, mean average precision on VOC against latency, five recorded devices. A strategy gets 100 distinct
evaluations in batches of 10, ten seeds; a proxy picks as many detectors, front by front of (proxy, latency). All know
the recorded latencies exactly. Recall is the share of the true front's detectors that are among those 100; hypervolume
is of what was evaluated, as a share of the true front's (reference point: least precision and largest latency on it).

Proxies are what can be said of a detector without its code: nominal sizes (see
:class:`gnomon.search_spaces.yolobench.YOLOBench`), its latency on the four other devices, and its precision on another
data set. Those that look at the network itself (docs/zero_cost.md) are not computable, nor are exact parameters and
multiply-accumulates: the published table has none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf
from scipy import stats

from gnomon.predictors import LatencyModel
from gnomon.records import ArchitectureTable
from gnomon.records.tables import yolobench
from gnomon.records.yolobench_table import DATASETS
from gnomon.search import Problem
from gnomon.search.instantiate import instantiate
from gnomon.search.objectives import ParetoObjective
from gnomon.search.pareto import best, hypervolume, non_dominated
from gnomon.search_spaces import Genotypes
from gnomon.testing.simulation import simulate

from ._common import ROOT, main

STRATEGIES = ("nsga2", "aging_evolution", "random", "tpe", "optuna_nsga2")
EVALUATIONS, BATCH, GRID = 100, 10, (25, 50, 100)
SEEDS, QUICK_SEEDS = tuple(range(10)), (0, 1)
QUALITY = "map_voc"
PLOT = ROOT / "docs" / "images" / "yolobench.png"

FloatArray = npt.NDArray[np.float64]


class RecordedLatency(LatencyModel):
    """A column of the table, without error."""

    def __init__(self, table: ArchitectureTable, device: str) -> None:
        self.table, self.device = table, device

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        return self.table.lookup(genotypes, self.device), np.zeros(len(genotypes))


def run(quick: bool) -> dict[str, float]:
    """Recall of YOLOBench's Pareto fronts."""
    table = yolobench()
    devices = tuple(table.settings)[: 2 if quick else None]
    names = ("nsga2", "random") if quick else STRATEGIES
    metrics: dict[str, float] = {}
    for name in names:
        found = [searched(table, device, name, QUICK_SEEDS if quick else SEEDS) for device in devices]
        print(f"{name} done", file=sys.stderr, flush=True)
        metrics |= summary(name, devices, np.array(found))
    for name, scores in proxies(table).items():
        metrics |= proxy_metrics(name, table, scores, devices)
    fronts = [int(true_front(table, device).sum()) for device in devices]
    metrics |= {f"front.{device}": float(size) for device, size in zip(devices, fronts, strict=True)}
    metrics |= {"detectors": len(table.genotypes), "evaluations": EVALUATIONS, "batch": BATCH}
    if not quick:
        plot(metrics)
    return metrics


def losses_of(table: ArchitectureTable, device: str) -> FloatArray:
    """Precision, negated, and latency ``(N, 2)``."""
    return np.stack([-table.columns[QUALITY], table.columns[device]], axis=1)


def true_front(table: ArchitectureTable, device: str) -> npt.NDArray[np.bool_]:
    """Which detectors no other beats ``(N,)``."""
    return np.asarray(non_dominated(losses_of(table, device)))


def scored(table: ArchitectureTable, device: str, rows: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Recall and hypervolume of chosen rows of the table."""
    losses, front = losses_of(table, device), true_front(table, device)
    reference = losses[front].max(axis=0)
    share = hypervolume(losses[rows], reference) / hypervolume(losses[front], reference)
    return float(front[np.unique(rows)].sum() / front.sum()), share


def searched(table: ArchitectureTable, device: str, name: str, seeds: tuple[int, ...]) -> FloatArray:
    """Recall and hypervolume ``(seeds, GRID, 2)`` of a strategy as it ships."""
    node = OmegaConf.load(Path(ROOT) / "conf" / "strategy" / f"{name}.yaml")
    problem = Problem(table.space, ParetoObjective(), RecordedLatency(table, device))
    found = []
    for seed in seeds:
        search = simulate(
            lambda: instantiate(node, "strategy"),
            problem,
            lambda rows: table.lookup(rows, QUALITY),
            evaluations=EVALUATIONS,
            batch=BATCH,
            seed=seed,
        )
        rows = table.rows(search.history.genotypes)
        if len(rows) != EVALUATIONS:
            raise SystemExit(f"{name} made {len(rows)} distinct evaluations instead of {EVALUATIONS}")
        found.append([scored(table, device, rows[:count]) for count in GRID])
    return np.array(found)


def summary(name: str, devices: tuple[str, ...], found: FloatArray) -> dict[str, float]:
    """Means over seeds of ``(devices, seeds, GRID, 2)``."""
    metrics: dict[str, float] = {}
    for column, figure in enumerate(("recall", "hypervolume")):
        for row, device in zip(found[:, :, -1, column], devices, strict=True):
            metrics[f"{name}.{figure}.{device}"] = float(row.mean())
        metrics[f"{name}.{figure}.mean"] = float(found[:, :, -1, column].mean())
        for index, count in enumerate(GRID):
            metrics[f"{name}.{figure}_after.{count}"] = float(found[:, :, index, column].mean())
    seeds = found[:, :, -1, 0].mean(axis=0)
    metrics[f"{name}.recall.standard_error"] = float(seeds.std(ddof=1) / np.sqrt(len(seeds)))
    return metrics


def proxies(table: ArchitectureTable) -> Mapping[str, FloatArray]:
    """Scores of all detectors ``(N,)``, larger is better; ``elsewhere`` depends on the device and is NaN here."""
    costs = table.space.costs(table.genotypes)
    resolution = np.array([table.space.config(row)["resolution"] for row in table.genotypes], dtype=np.float64)
    return {
        "nominal_macs": costs.macs,
        "nominal_parameters": costs.parameters,
        "resolution": resolution,
        "latency_elsewhere": np.full(len(costs.macs), np.nan),
        "map_coco": table.columns["map_coco"],
    }


def proxy_metrics(
    name: str, table: ArchitectureTable, scores: FloatArray, devices: tuple[str, ...]
) -> dict[str, float]:
    """Correlations with the precision on every data set, and recall of the front on every device."""
    metrics: dict[str, float] = {}
    by_device = {device: elsewhere(table, device) if np.isnan(scores).all() else scores for device in table.settings}
    for data in DATASETS:
        precision = table.columns[f"map_{data}"]
        if name == f"map_{data}":
            continue
        for figure, statistic in (("kendall", stats.kendalltau), ("spearman", stats.spearmanr)):
            values = [float(statistic(by_device[device], precision).statistic) for device in devices]
            metrics[f"{name}.{figure}.{data}"] = float(np.mean(values))
    found = []
    for device in devices:
        losses = np.stack([-by_device[device], table.columns[device]], axis=1)
        found.append(scored(table, device, np.asarray(best(losses, None, EVALUATIONS), dtype=np.int64)))
        metrics[f"{name}.recall.{device}"], metrics[f"{name}.hypervolume.{device}"] = found[-1]
    metrics[f"{name}.recall.mean"], metrics[f"{name}.hypervolume.mean"] = map(float, np.mean(found, axis=0))
    return metrics


def elsewhere(table: ArchitectureTable, device: str) -> FloatArray:
    """Mean logarithm of the latency on all other devices ``(N,)``."""
    others = [np.log(table.columns[other]) for other in table.settings if other != device]
    return np.asarray(np.mean(others, axis=0))


def plot(metrics: Mapping[str, float]) -> None:
    """Recall after so many evaluations, as a mean over devices and seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name in STRATEGIES:
        axes.plot(GRID, [metrics[f"{name}.recall_after.{count}"] for count in GRID], marker="o", label=name)
    for name, style in (("nominal_macs", ":"), ("map_coco", "--")):
        axes.axhline(
            metrics[f"{name}.recall.mean"], color="grey", linestyle=style, label=f"{name}, {EVALUATIONS} picks"
        )
    axes.set(xlabel="detectors evaluated, of 572", ylabel="share of the true front found", ylim=(0, 1))
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(PLOT, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main("yolobench", run, seeds=SEEDS)
