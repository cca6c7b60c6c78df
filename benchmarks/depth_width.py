"""Which depth is best at which latency: ``python -m benchmarks.depth_width``.

Attention models of several depths and widths learn bytes of the standard library with the same number of tokens, and
are measured through ONNX Runtime: one thread, a token after a context as long as a training window. Over latency
budgets spaced evenly in log ms, ``budget<i>.depth`` is the depth of the model with the fewest bits per byte on held-out
files within the budget, by the mean over seeds; ``depth_correlation`` is the rank correlation of budget and best depth.
Nemotron-Flash (2511.18890, Section 3.1) finds that the best depth grows with the budget. ``seed_difference`` is how far
two seeds of one model are apart, in bits per byte, mean over models.

Trainings are kept in ``--trainings`` and not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from benchmarks._common import ROOT, main_with
from benchmarks._language import QUICK_TASK, TASK, LanguageTraining, deployable_of, make_space
from benchmarks._studies import load_protocol, measure_together
from benchmarks._trainings import SpaceNetwork, TrainingStore, add_arguments, run_all
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.search_spaces import SearchSpace

PICTURE = ROOT / "docs" / "images" / "depth_width.png"
BUDGETS = 6


@dataclass(frozen=True)
class Plan:
    """The models and how they are trained."""

    task: tuple[str, ...]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    epochs: float
    seeds: tuple[int, ...]
    protocol: str = "default"


PLAN = Plan(TASK, (2, 4, 7, 12), (48, 64, 96, 128, 192), 4.0, (0, 1))
QUICK = Plan(QUICK_TASK, (1, 2), (32, 64), 1.0, (0,), "quick")


@dataclass(frozen=True)
class Model:
    """One depth and width.

    Args:
        depth: Blocks of attention and feed-forward.
        width: Of the hidden state.
        latency_ms: Of a token.
        bits: Per byte of the validation split, mean over seeds.
    """

    depth: int
    width: int
    latency_ms: float
    bits: float


def run(options: argparse.Namespace) -> dict[str, float]:
    """The best depth at each latency."""
    plan = QUICK if options.quick else PLAN
    space, sizes = space_of(plan), [(depth, width) for depth in plan.depths for width in plan.widths]
    networks = {
        f"{depth}x{width}": SpaceNetwork.of(space, space.genotype({"layers": depth, "width": width}))
        for depth, width in sizes
    }
    jobs = {
        name: [LanguageTraining(each, plan.task, plan.epochs, seed) for seed in plan.seeds]
        for name, each in networks.items()
    }
    store, every = TrainingStore(options.trainings), [job for group in jobs.values() for job in group]
    results = run_all(every, store, processes=options.processes, title="depth_width")
    deployables = {name: deployable_of(each) for name, each in networks.items()}
    measured = measure_together(OnnxRuntimeDevice(), deployables, load_protocol(plan.protocol))
    bits = {name: [results[job].validation["bits_per_byte"] for job in group] for name, group in jobs.items()}
    models = [
        Model(depth, width, measured[name].latency_ms, float(np.mean(bits[name])))
        for name, (depth, width) in zip(networks, sizes, strict=True)
    ]
    if not options.quick:
        draw(models)
    return {
        **figures(models),
        **{f"{m.depth}x{m.width}.latency_ms": m.latency_ms for m in models},
        **{f"{m.depth}x{m.width}.bits_per_byte": m.bits for m in models},
        "seed_difference": float(np.mean([max(values) - min(values) for values in bits.values()])),
        "training_hours": sum(result.seconds for result in results.values()) / 3600,
    }


def space_of(plan: Plan) -> SearchSpace:
    """Blocks of attention and a feed-forward: how many, and how wide."""
    words = (
        *("space=hybrid_slm_free", "space.mixers=[attention]", f"space.layers={list(plan.depths)}", "space.ffns=[1]"),
        *(f"space.widths={list(plan.widths)}", "space.head_sizes=[16]", "space.kv_heads=[1]"),
        f"space.max_operators={2 * plan.depths[-1]}",
    )
    return make_space(plan.task, words)


def figures(models: Sequence[Model]) -> dict[str, float]:
    """The best model within each budget."""
    fastest, slowest = (float(f([model.latency_ms for model in models])) for f in (min, max))
    budgets = np.geomspace(fastest, slowest, BUDGETS + 1)[1:]
    best = [min((m for m in models if m.latency_ms <= budget), key=lambda m: m.bits) for budget in budgets]
    metrics: dict[str, float] = {}
    for number, (budget, model) in enumerate(zip(budgets, best, strict=True), 1):
        found = {"ms": float(budget), "depth": model.depth, "width": model.width, "bits_per_byte": model.bits}
        metrics |= {f"budget{number}.{name}": value for name, value in found.items()}
    depths = [model.depth for model in best]
    moves = float(spearmanr(budgets, depths).statistic) if len(set(depths)) > 1 else 0.0
    return {"depth_correlation": moves, "least_depth": min(depths), "most_depth": max(depths), **metrics}


def draw(models: Sequence[Model]) -> None:
    """Bits per byte against latency, a line a depth."""
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        for number, depth in enumerate(sorted({model.depth for model in models})):
            line = sorted((m for m in models if m.depth == depth), key=lambda m: m.width)
            places = [m.latency_ms for m in line], [m.bits for m in line]
            axes.plot(*places, marker="o", markersize=4, color=f"C{number}", label=f"{depth} blocks")
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)
        axes.set_xlabel("ms per token, ONNX Runtime, 1 thread")
        axes.set_ylabel("bits per byte, validation")
        axes.legend(frameon=False)
        style.save(figure, PICTURE)


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    main_with("depth_width", run, parser, seeds=PLAN.seeds)
