"""How well each quality predictor ranks networks that were never trained, from a few that were, and how sure it is.

NAS-Bench-201 (CIFAR-100) and NAS-Bench-Macro (CIFAR-10), published accuracies. Each predictor learns from 20 to 200
random networks and is asked about 3,000 others: the rank correlation over all of them and over the better half (where
a search looks), and the share of their accuracies within its 90 % interval. ``macs`` ranks by multiply-accumulates
and learns nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from benchmarks._common import ROOT, main
from gnomon.predictors import QualityPredictor
from gnomon.records import ArchitectureTable
from gnomon.records.tables import hwnas360, nasbench_macro
from gnomon.search.instantiate import instantiate
from gnomon.search_spaces import SearchSpace

FloatArray = npt.NDArray[np.float64]

TABLES: Mapping[str, Callable[[], ArchitectureTable]] = {"nasbench201": hwnas360, "nasbench_macro": nasbench_macro}
EVALUATIONS = (20, 50, 100, 200)
ASKED = 3000
SEEDS, QUICK_SEEDS = tuple(range(10)), (0,)
Z90 = 1.645
FOLDER = ROOT / "conf" / "quality_predictor"


def run(quick: bool) -> dict[str, float]:
    """Rank correlation and coverage of every quality predictor against evaluations, on recorded accuracies."""
    metrics: dict[str, float] = {}
    for data, read in TABLES.items():
        table = read()
        accuracy = table.columns["accuracy"]
        for name in predictors():
            for count in EVALUATIONS[:2] if quick else EVALUATIONS:
                rows = [scores(name, table, accuracy, count, seed) for seed in (QUICK_SEEDS if quick else SEEDS)]
                metrics |= {f"{data}.{key}.{name}.{count}": float(np.mean([r[key] for r in rows])) for key in rows[0]}
        metrics |= _by_macs(data, table, accuracy)
    return metrics


def predictors() -> list[str]:
    """Those that ship, by their name in ``conf/quality_predictor``."""
    return sorted(path.stem for path in Path(FOLDER).glob("*.yaml"))


def make(name: str, space: SearchSpace, seed: int) -> QualityPredictor:
    """As it ships."""
    predictor: QualityPredictor = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"), "quality_predictor")(
        space, seed=seed
    )
    return predictor


def scores(name: str, table: ArchitectureTable, accuracy: FloatArray, count: int, seed: int) -> dict[str, float]:
    """Of one predictor after ``count`` evaluations; the same for every predictor, by seed."""
    order = np.random.default_rng(seed).permutation(len(accuracy))
    known, asked = order[:count], order[-ASKED:]
    start = time.perf_counter()
    predictor = make(name, table.space, seed).fit(table.genotypes[known], accuracy[known])
    mean, _ = predictor.predict(table.genotypes[asked])
    seconds = time.perf_counter() - start
    low, high = predictor.spread(table.genotypes[asked], np.array([[-Z90], [Z90]]))
    truth = accuracy[asked]
    upper = truth >= np.median(truth)
    within = (low <= truth) & (truth <= high)
    return {
        "spearman": spearman(mean, truth),
        "spearman_better_half": spearman(mean[upper], truth[upper]),
        "coverage": float(within.mean()),
        "coverage_better_half": float(within[upper].mean()),
        "seconds": seconds,
    }


def spearman(one: FloatArray, other: FloatArray) -> float:
    """Rank correlation; 0 where one of them is constant."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)


def _by_macs(data: str, table: ArchitectureTable, accuracy: FloatArray) -> dict[str, float]:
    """What is known without any training."""
    macs = table.space.costs(table.genotypes).macs
    upper = accuracy >= np.median(accuracy)
    return {
        f"{data}.spearman.macs.0": spearman(macs, accuracy),
        f"{data}.spearman_better_half.macs.0": spearman(macs[upper], accuracy[upper]),
    }


if __name__ == "__main__":
    main("quality_predictors", run, seeds=SEEDS)
