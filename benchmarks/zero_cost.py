"""How well zero-cost proxies rank cells of NAS-Bench-201 by their recorded CIFAR-100 accuracy.

A random sample of 1,000 cells; CIFAR is not downloaded, so the inputs are Gaussian noise with random labels. Networks
have 16, 32 and 64 channels like the benchmark's, but one cell a stage in place of five, since all is computed on a CPU;
minibatches are of 32, and batch norm uses them. Scores are kept in a file, so that a run that was stopped goes on.

A cell that passes nothing of its input on gets -inf from every proxy that looks at what flows through it;
``spearman_connected`` leaves those cells out, for all proxies alike. ``published`` are the Spearman correlations that
Abdelfattah et al. (2101.08134, Table 1) give for CIFAR-100, with CIFAR-100's own images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from gnomon.records.tables import hwnas360
from gnomon.search_spaces import Genotypes
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.tasks.proxies.base import Proxy
from gnomon.tasks.proxies.catalog import all_proxies, az_nas
from gnomon.tasks.proxies.scorer import NetworkScorer
from gnomon.tasks.recorded import RecordedTask

from ._common import main_with

NETWORKS, QUICK_NETWORKS = 1000, 24
BATCH_SIZE, CELLS, SEED = 32, 1, 0
DEAR = ("grasp",)
"""Proxies that take longer than all others together."""
VOTE = ("synflow", "jacob_cov", "snip")
"""Whose ranks 2101.08134 lets vote."""

FloatArray = npt.NDArray[np.float64]


def run(options: argparse.Namespace) -> dict[str, float]:
    """Rank correlations of proxies with recorded accuracies on NAS-Bench-201."""
    count = QUICK_NETWORKS if options.quick else options.networks
    table = hwnas360()
    rows = np.random.default_rng(SEED).permutation(len(table.genotypes))[:count]
    # The dearest last: a run that is stopped has the others for most networks.
    score(make_scorer(options.store, [p for p in all_proxies() if p.name not in DEAR]), table.genotypes[rows])
    scorer = make_scorer(options.store, all_proxies())
    values, seconds = score(scorer, table.genotypes[rows])
    return summary(scorer.names, values, seconds, table.columns["accuracy"][rows])


def make_scorer(store: Path, proxies: Sequence[Proxy]) -> NetworkScorer:
    """On Gaussian noise."""
    space = NASBench201((3, 32, 32), classes=100, cells=CELLS)
    task = RecordedTask("CIFAR-100", (3, 32, 32), 100)
    return NetworkScorer(space, task, proxies, inputs="gaussian", batch_size=BATCH_SIZE, store=store)


def score(scorer: NetworkScorer, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
    """Scores and seconds ``(N, P)`` each."""
    values, seconds = np.empty((len(genotypes), len(scorer.names))), np.empty((len(genotypes), len(scorer.names)))
    start = time.perf_counter()
    for i, genotype in enumerate(genotypes):
        found = scorer.score(scorer.space.config(genotype), SEED)
        values[i], seconds[i] = found.values, found.seconds
        if i % 50 == 49:
            print(f"{i + 1} of {len(genotypes)}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return values, seconds


def summary(names: tuple[str, ...], values: FloatArray, seconds: FloatArray, accuracy: FloatArray) -> dict[str, float]:
    """Correlations with ``accuracy`` ``(N,)`` by proxy, and of combinations by rank; ``values`` are ``(N, P)``."""
    columns = {name: values[:, i] for i, name in enumerate(names)}
    times = {name: float(np.median(seconds[:, i][seconds[:, i] > 0])) for i, name in enumerate(names)}
    members = tuple(proxy.name for proxy in az_nas())
    for name, parts in (("az_nas", members), ("vote", VOTE), ("nwot_synflow_macs", ("nwot", "synflow", "macs"))):
        columns[name] = sum(np.log(stats.rankdata(columns[part]) / len(accuracy)) for part in parts)
        times[name] = sum(times[part] for part in parts)
    connected = np.isfinite(values).all(axis=1) | np.isfinite(columns["nwot"])
    metrics: dict[str, float] = {}
    for name, column in columns.items():
        metrics[f"{name}.spearman"] = correlation(stats.spearmanr, column, accuracy)
        metrics[f"{name}.kendall"] = correlation(stats.kendalltau, column, accuracy)
        metrics[f"{name}.spearman_connected"] = correlation(stats.spearmanr, column[connected], accuracy[connected])
        top = accuracy >= np.quantile(accuracy, 0.9)
        metrics[f"{name}.spearman_best_tenth"] = correlation(stats.spearmanr, column[top], accuracy[top])
        metrics[f"{name}.seconds"] = times[name]
        if name in PUBLISHED:
            metrics[f"{name}.published"] = PUBLISHED[name]
    return metrics | {
        "networks": len(accuracy),
        "degenerate": int((~connected).sum()),
        "batch_size": BATCH_SIZE,
        "cells_per_stage": CELLS,
    }


PUBLISHED: dict[str, float] = {}


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
    main_with("zero_cost", run, parser, seeds=(SEED,))
