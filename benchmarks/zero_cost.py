"""How well zero-cost proxies rank cells of NAS-Bench-201 by their recorded CIFAR-100 accuracy.

A random sample of 1,000 cells; CIFAR is not downloaded, so the inputs are Gaussian noise with random labels. Networks
have 16, 32 and 64 channels like the benchmark's, but one cell a stage in place of five, since all is computed on a CPU;
minibatches are of 32, and batch norm uses them. Scores are kept in a file, so that a run that was stopped goes on.

A cell that passes nothing of its input on gets -inf from every proxy that looks at what flows through it;
``spearman_connected`` leaves those cells out, for all proxies alike; ``spearman_best_tenth`` is among the tenth of the
cells with the highest accuracy, which is where a search has to choose. ``first`` is the mean accuracy of the 20 cells
that a proxy ranks first of 200 random ones. ``seconds`` are of the processor, on one thread. ``skeleton`` tells what
the missing cells change, on a few networks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from gnomon.records.tables import hwnas360
from gnomon.search_spaces import Genotypes
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.tasks.proxies.base import Proxy
from gnomon.tasks.proxies.catalog import all_proxies, az_nas, default_proxies
from gnomon.tasks.proxies.scorer import NetworkScorer
from gnomon.tasks.recorded import RecordedTask

from ._common import main_with

NETWORKS, QUICK_NETWORKS = 1000, 12
BATCH_SIZE, CELLS, SEED = 32, 1, 0
DEAR = ("grasp",)
"""Proxies that take longer than all others together."""
TIMED = 20
"""Networks on which proxies are timed."""
DEEP = 70
"""Networks that are looked at with the published five cells a stage, too."""
DEEP_PROXIES = (
    "macs", "grad_norm", "snip", "fisher", "synflow", "jacob_cov", "nwot", "zico",
    "az_expressivity", "az_progressivity", "az_trainability",
)  # fmt: skip
WARM, WARM_DRAWS = (20, 200), 100
COMBINED = {
    "az_nas": tuple(proxy.name for proxy in az_nas()),
    "vote": ("synflow", "jacob_cov", "snip"),  # whose ranks vote in 2101.08134, Section 3
    "default": tuple(proxy.name for proxy in default_proxies()),
}
"""By rank, among the networks of the sample."""

FloatArray = npt.NDArray[np.float64]


def run(options: argparse.Namespace) -> dict[str, float]:
    """Rank correlations of proxies with recorded accuracies on NAS-Bench-201."""
    count = QUICK_NETWORKS if options.quick else options.networks
    table = hwnas360()
    rows = np.random.default_rng(SEED).permutation(len(table.genotypes))[:count]
    proxies = [proxy for proxy in all_proxies() if proxy.name not in options.without]
    # The dearest last: a run that is stopped has the others for most networks.
    score(make_scorer(options.store, [p for p in proxies if p.name not in DEAR]), table.genotypes[rows])
    scorer = make_scorer(options.store, proxies)
    values = score(scorer, table.genotypes[rows])
    seconds = time_taken(proxies, table.genotypes[rows[: 4 if options.quick else TIMED]])
    metrics = summary(scorer.names, values, seconds, table.columns["accuracy"][rows])
    few = rows[: 6 if options.quick else DEEP]
    return metrics | depths(options.store, table.genotypes[few], table.columns["accuracy"][few])


def depths(store: Path, genotypes: Genotypes, accuracy: FloatArray) -> dict[str, float]:
    """Spearman correlations of some proxies on the same few networks with one and with five cells a stage."""
    proxies = [proxy for proxy in all_proxies() if proxy.name in DEEP_PROXIES]
    metrics: dict[str, float] = {"skeleton_networks": len(genotypes)}
    for label, cells in (("one_cell", CELLS), ("five_cells", 5)):
        values = score(make_scorer(store, proxies, cells), genotypes)
        columns = combined({proxy.name: column for proxy, column in zip(proxies, values.T, strict=True)})
        for name, column in columns.items():
            metrics[f"skeleton.{name}.{label}"] = correlation(stats.spearmanr, column, accuracy)
    return metrics


def make_scorer(store: Path | None, proxies: Sequence[Proxy], cells: int = CELLS) -> NetworkScorer:
    """On Gaussian noise."""
    space = NASBench201((3, 32, 32), classes=100, cells=cells)
    task = RecordedTask("CIFAR-100", (3, 32, 32), 100)
    return NetworkScorer(space, task, proxies, inputs="gaussian", batch_size=BATCH_SIZE, store=store)


def score(scorer: NetworkScorer, genotypes: Genotypes) -> FloatArray:
    """Scores ``(N, P)``."""
    values = np.empty((len(genotypes), len(scorer.names)))
    start = time.perf_counter()
    for i, genotype in enumerate(genotypes):
        values[i] = scorer.score(scorer.space.config(genotype), SEED).values
        if i % 50 == 49:
            print(f"{i + 1} of {len(genotypes)}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return values


def time_taken(proxies: Sequence[Proxy], genotypes: Genotypes) -> FloatArray:
    """Median processor seconds of each proxy ``(P,)`` on one thread."""
    scorer = make_scorer(None, proxies)
    taken = np.array([scorer.score(scorer.space.config(genotype), SEED).seconds for genotype in genotypes])
    return np.asarray(np.nanmedian(np.where(taken > 0, taken, np.nan), axis=0))


def summary(names: tuple[str, ...], values: FloatArray, seconds: FloatArray, accuracy: FloatArray) -> dict[str, float]:
    """Figures of each proxy and of combinations by rank, from ``values`` ``(N, P)`` and ``accuracy`` ``(N,)``."""
    columns = combined({name: values[:, i] for i, name in enumerate(names)})
    times = dict(zip(names, seconds.tolist(), strict=True))
    times |= {name: sum(times[part] for part in COMBINED[name]) for name in columns if name in COMBINED}
    connected = np.isfinite(columns["nwot_preactivation"])
    best = accuracy >= np.quantile(accuracy, 0.9)
    metrics: dict[str, float] = {}
    for name, column in columns.items():
        metrics[f"{name}.spearman"] = correlation(stats.spearmanr, column, accuracy)
        metrics[f"{name}.kendall"] = correlation(stats.kendalltau, column, accuracy)
        metrics[f"{name}.spearman_connected"] = correlation(stats.spearmanr, column[connected], accuracy[connected])
        metrics[f"{name}.spearman_best_tenth"] = correlation(stats.spearmanr, column[best], accuracy[best])
        metrics[f"{name}.first"] = first_accuracy(column, accuracy)
        metrics[f"{name}.seconds"] = times[name]
    return metrics | {
        "random.first": 100 * float(accuracy.mean()),
        "networks": len(accuracy),
        "degenerate": int((~connected).sum()),
        "batch_size": BATCH_SIZE,
        "cells_per_stage": CELLS,
    }


def combined(columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Scores ``(N,)`` by name, and the combinations of those that are there."""
    found = dict(columns)
    for name, parts in COMBINED.items():
        if set(parts) <= set(columns):
            ranks = np.stack([stats.rankdata(columns[part]) for part in parts])
            found[name] = np.log(ranks / ranks.shape[1]).sum(axis=0)
    return found


def first_accuracy(scores: FloatArray, accuracy: FloatArray) -> float:
    """Mean accuracy in percent of the 20 that a proxy ranks first of 200, over random choices of these: with what a
    warm start begins."""
    rng, size = np.random.default_rng(SEED), min(WARM[1], len(scores) // 2)
    drawn = [rng.choice(len(scores), size, replace=False) for _ in range(WARM_DRAWS)]
    chosen = [rows[np.argsort(-scores[rows], kind="stable")[: WARM[0]]] for rows in drawn]
    return 100 * float(accuracy[np.concatenate(chosen)].mean())


def correlation(statistic: object, scores: FloatArray, accuracy: FloatArray) -> float:
    """Of ranks; -inf is the lowest. 0 where all scores are equal: such a proxy says nothing."""
    ranks = stats.rankdata(scores)
    return float(statistic(ranks, accuracy).statistic) if np.ptp(ranks) > 0 else 0.0  # type: ignore[operator]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--networks", type=int, default=NETWORKS, help="cells in the sample")
    parser.add_argument(
        "--store",
        type=Path,
        default=Path(tempfile.gettempdir()) / "gnomon_zero_cost.sqlite",
        help="file that keeps scores, so that a stopped run goes on",
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="PROXY", help="leave a proxy out; may be given several times"
    )
    main_with("zero_cost", run, parser, seeds=(SEED,))
