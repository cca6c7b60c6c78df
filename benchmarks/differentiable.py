"""What the latency term of a differentiable search is worth: ``python -m benchmarks.differentiable``.

For each seed ``gnomon search strategy=differentiable`` runs twice, for as many epochs and with the same settings: with
the predicted latency in its loss, and without (``strategy.weight=0``). The most likely network of each is trained from
scratch by the task's recipe, its file scored on the test split, and all files are measured together in one interleaved
session on ONNX Runtime on this machine.

``latency_ratio``: mean measured latency with the term over that without; ``accuracy_difference``: mean test accuracy
with the term minus that without, in points. Studies, and the latencies of reference networks, are kept (``--studies``)
and not repeated.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import OmegaConf

from benchmarks._common import main_with
from benchmarks._studies import STUDIES, load_protocol, measure_together, run_search
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.records import ModelRow, StudySummary
from gnomon.search_spaces import Deployable, SearchSpace, space_from_spec

SEEDS = (0, 1, 2)
WEIGHT = 0.2
SIDES = {"with": WEIGHT, "without": 0.0}


@dataclass(frozen=True)
class Plan:
    """One task: words of ``gnomon search``, seeds, and the protocol of the final measurement."""

    words: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    protocol: str = "default"


COMMON = (
    *("strategy=differentiable", "strategy.relaxation=sampled", "strategy.level=bilevel"),
    *("study.evaluations=1", "study.batch=1", "study.workers=1", "study.refinements=0", "quality.epochs=1"),
    *("finalise.top_k=1", "finalise.max_models=1"),
)
FULL = Plan(
    (
        *("task=mnist_subset", "space=nasbench201", "space.input_shape=[1,28,28]", "space.classes=10"),
        *("space.channels=8", "space.cells=1", "study.references=10", "finalise.budget=8"),
        *("strategy.epochs=12", "strategy.warmup_epochs=4", "strategy.lr=0.05", "protocol=quick"),
    )
)
QUICK = Plan(
    (
        *("experiment=quick", "task=digits", "space=nasbench201", "space.input_shape=[1,8,8]", "space.classes=10"),
        *("space.channels=4", "space.cells=1", "study.references=5", "finalise.budget=1", "predictor=macs"),
        *("strategy.epochs=2", "strategy.warmup_epochs=1", "finalise.enabled=true"),
    ),
    seeds=(0,),
    protocol="quick",
)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Latency and accuracy of what is found with and without latency in the loss."""
    plan = QUICK if options.quick else FULL
    metrics: dict[str, float] = {}
    found: dict[str, ModelRow] = {}
    deployables: dict[str, Deployable] = {}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for seed in plan.seeds:
        for side, weight in SIDES.items():
            name = f"{side}.{seed}"
            folder = options.studies / f"differentiable{'_quick' if options.quick else ''}_{side}_{weight:g}_{seed}"
            own = (f"strategy.weight={weight:g}", f"study.seed={seed}")
            summary = run_search(folder, options.studies, [*plan.words, *COMMON, *own])
            found[name] = summary.models[0]
            seconds[side].append(summary.spend["preparing_s"])
            space = _space(summary)
            deployables[name] = space.deployable(space.config(space.algebra.from_key(found[name].key)))
    measured = measure_together(OnnxRuntimeDevice(), deployables, load_protocol(plan.protocol))
    for name, row in found.items():
        metrics[f"{name}.latency_ms"] = measured[name].latency_ms
        metrics[f"{name}.test_accuracy"] = 100.0 * row.test["accuracy"]
        metrics[f"{name}.search_s"] = seconds[name.partition(".")[0]][plan.seeds.index(int(name.partition(".")[2]))]

    def mean(side: str, figure: str) -> float:
        return float(np.mean([metrics[f"{side}.{seed}.{figure}"] for seed in plan.seeds]))

    for side in SIDES:
        metrics |= {f"{side}.{figure}": mean(side, figure) for figure in ("latency_ms", "test_accuracy", "search_s")}
    metrics["weight"] = WEIGHT
    metrics["latency_ratio"] = metrics["with.latency_ms"] / metrics["without.latency_ms"]
    metrics["accuracy_difference"] = metrics["with.test_accuracy"] - metrics["without.test_accuracy"]
    metrics["search_seconds_ratio"] = metrics["with.search_s"] / metrics["without.search_s"]
    return metrics


def _space(summary: StudySummary) -> SearchSpace:
    config = OmegaConf.create(summary.config)
    return space_from_spec(cast("dict[str, Any]", OmegaConf.to_container(config.space)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--studies", type=Path, default=STUDIES, metavar="FOLDER", help="searches and measurements")
    main_with("differentiable", run, parser, seeds=SEEDS)
