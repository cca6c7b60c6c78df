"""Few-shot latency prediction on published devices: Gnomon's predictor, HELP and baselines.

Every predictor learns from a split's source settings, chooses which architectures to measure on the target,
and is scored on others. Seeds resample the source architectures (bootstrap) and the candidates for references
(a random half); every measurement on the target counts. Metrics: ``<data>.<predictor>.<samples>.<metric>``, the
mean over targets and seeds, and ``<data>.<predictor>.<samples>.<target>.<metric>``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from omegaconf import DictConfig, OmegaConf

from gnomon.predictors import LatencyPredictor, PredictorScores
from gnomon.predictors.evaluate import score
from gnomon.predictors.protocol import FewShotProtocol
from gnomon.records.splits import DeviceSplit, Round
from gnomon.search.instantiate import instantiate
from gnomon.search_spaces import SearchSpace

from ._common import ROOT, main

SEEDS = tuple(range(10))
SLOW_SEEDS = (0, 1)
"""For predictors whose training or adapting takes long."""

FAST = ("gnomon", "bayesian_linear", "analytic", "ridge", "lookup", "macs", "parameters", "cio")
SLOW = ("linear_transfer", "gradient_boosting", "nasflat", "hat_mlp")

METRICS = {
    "spearman": "spearman",
    "kendall": "kendall",
    "mape": "mape",
    "within_5": "within_5_percent",
    "within_10": "within_10_percent",
    "coverage_90": "coverage_90",
    "interval_score": "interval_score",
}


@dataclass(frozen=True)
class Job:
    """One split, which predictors run on it, after how many measurements.

    Args:
        data: Name in the metrics.
        split: Option of the config group.
        predictors: Options of the config group.
        samples: Measurements on the target.
        lines: Whether linear transfer's source models are lines, which makes it fast: FBNet and Once-for-All,
            where latency is a sum over layers, and trees on 4,000 rows of 200 columns would take an hour.
    """

    data: str
    split: str
    predictors: tuple[str, ...]
    samples: tuple[int, ...] = (10,)
    lines: bool = False


JOBS = (
    Job("help_nasbench201", "help_nasbench201", (*FAST, *SLOW)),
    Job("help_nasbench201", "help_nasbench201", ("gnomon",), (3, 5, 20)),
    Job("help_nasbench201_13", "help_nasbench201_13", ("gnomon", "linear_transfer")),
    Job("help_nasbench201_gpus_only", "help_nasbench201_gpus_only", ("gnomon", "linear_transfer")),
    Job("help_nasbench201_without_family", "help_nasbench201_without_family", ("gnomon",)),
    Job("hwnas360_pi5_onnx", "hwnas360_pi5_onnx", (*FAST, "linear_transfer")),
    Job("help_fbnet_lodo", "help_fbnet_lodo", (*FAST, "linear_transfer"), lines=True),
    Job("help_ofa_family", "help_ofa_family", (*FAST, "linear_transfer"), lines=True),
    Job("hat", "hat", ("gnomon", "linear_transfer")),
    Job("hat_iwslt", "hat_iwslt", ("gnomon", "linear_transfer")),
)


def run(quick: bool) -> dict[str, float]:
    """Rank correlation, errors and intervals of few-shot latency predictors on published devices."""
    results: dict[str, float] = {}
    for job in JOBS:
        split = named_split(job.split)
        pool = split.pool()
        for name in job.predictors[:2] if quick else job.predictors:
            slow = name in SLOW and not job.lines
            seeds = SEEDS[:1] if quick else SLOW_SEEDS if slow else SEEDS
            protocol = FewShotProtocol(partial(_predictor, name, lines=job.lines), split, pool)
            start = time.perf_counter()
            for samples in job.samples:
                found = dict(_scores(protocol, split, samples, seeds))
                results |= _metrics(f"{job.data}.{name}.{samples}", found)
            seconds = time.perf_counter() - start
            shown = results[f"{job.data}.{name}.{job.samples[-1]}.spearman_all"]
            print(
                f"{job.data} {name} {job.samples}: Spearman {shown:.4f}, {seconds:.0f} s", file=sys.stderr, flush=True
            )
    return results


def named_split(name: str) -> DeviceSplit:
    """An option of the config group ``split``."""
    split: DeviceSplit = instantiate(_option("split", name), "split")
    return split


def _option(group: str, name: str) -> DictConfig:
    """An option of a config group, with its defaults."""
    option = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    if not isinstance(option, DictConfig):
        raise TypeError(f"{group}/{name} is no mapping")
    return option


def _predictor(name: str, space: SearchSpace, *, lines: bool = False) -> LatencyPredictor:
    config = _option("predictor", name)
    if name == "linear_transfer" and lines:
        config.models = ["line"]
    predictor: LatencyPredictor = instantiate(config, "predictor", space=space)
    return predictor


Key = tuple[str, str]
"""A target and a query."""


def _scores(
    protocol: FewShotProtocol, split: DeviceSplit, samples: int, seeds: Sequence[int]
) -> Iterator[tuple[Key, list[dict[str, float]]]]:
    """For every target and query the figures of each seed."""
    found: dict[Key, list[dict[str, float]]] = {}
    for chosen in split.rounds:
        for seed in seeds:
            for target in chosen.targets:
                for query, figures in _one(protocol, chosen, target, samples, seed).items():
                    found.setdefault((target, query), []).append(figures)
    yield from found.items()


def _one(protocol: FewShotProtocol, chosen: Round, target: str, samples: int, seed: int) -> dict[str, dict[str, float]]:
    model = protocol.adapted(chosen, target, samples, seed)
    result = {}
    for query in protocol.split.queries:
        a = protocol.answers(model, target, query)
        scores = score(a.mean_ms, a.std_ms, a.measured_ms, samples)
        figures = {short: float(getattr(scores, name)) for short, name in METRICS.items()}
        # The interval to beat: the same share of the mean everywhere, the best such share in hindsight.
        figures["constant_interval_score"] = _constant(a.mean_ms, a.measured_ms)
        result[query] = figures
    return result


def _constant(mean_ms: np.ndarray, measured_ms: np.ndarray) -> float:
    """Interval score of ``mean ± 1.645 c mean`` with the root mean square relative error for c."""
    share = float(np.sqrt(np.mean(np.square(measured_ms / mean_ms - 1.0))))
    scores: PredictorScores = score(mean_ms, share * mean_ms, measured_ms, 0)
    return scores.interval_score


def _metrics(prefix: str, found: dict[Key, list[dict[str, float]]]) -> dict[str, float]:
    results: dict[str, float] = {}
    queries = sorted({query for _, query in found})
    for query in queries:
        targets = [target for target, q in found if q == query]
        for name in found[targets[0], query][0]:
            by_target = {t: float(np.mean([figures[name] for figures in found[t, query]])) for t in targets}
            metric = name if query == "all" and name != "spearman" else f"{name}_{query}"
            results[f"{prefix}.{metric}"] = float(np.mean(list(by_target.values())))
            if name in ("coverage_90", "interval_score", "constant_interval_score") and query == "all":
                results[f"{prefix}.{name}_least"] = min(by_target.values())
                results[f"{prefix}.{name}_most"] = max(by_target.values())
            for target, value in by_target.items():
                results[f"{prefix}.{target}.{metric}"] = value
    return results


if __name__ == "__main__":
    main("latency_few_shot", run, seeds=SEEDS)
