"""MnasNet's controller against aging evolution: distinct evaluations to the same reward on NAS-Bench-201.

Recorded CIFAR-100 accuracies and latencies of three devices; the reward is MnasNet's soft one, its target the latency
that a quarter of the networks meets. Aging evolution gets a number of evaluations, and the controller as many as it
takes until its best reward, as the mean of seeds, is the same, up to three times as many.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._common import ROOT, main_with
from benchmarks.strategies import BATCH, Ground, grounds
from gnomon.search import Strategy
from gnomon.search.strategies.aging_evolution import AgingEvolution
from gnomon.search.strategies.controller import Controller
from gnomon.testing.simulation import simulate

SEEDS, QUICK_SEEDS = tuple(range(10)), (0, 1)
COUNTS, QUICK_COUNTS = (100, 200), (50,)
"""Evaluations of aging evolution."""
ALLOWED = 3
"""Evaluations of the controller, as a multiple."""
CONTESTANTS: Mapping[str, Callable[[], Strategy]] = {
    "aging_evolution": AgingEvolution,
    "controller": Controller,
    "controller_reinforce": partial(Controller, "reinforce"),
}
PICTURE = ROOT / "docs" / "images" / "controller.png"

FloatArray = npt.NDArray[np.float64]


def run(options: argparse.Namespace) -> dict[str, float]:
    """Evaluations that MnasNet's controller needs for the reward that aging evolution reaches."""
    counts = QUICK_COUNTS if options.quick else COUNTS
    seeds = QUICK_SEEDS if options.quick else SEEDS
    places = grounds("nasbench201")
    metrics: dict[str, float] = {"allowed_ratio": float(ALLOWED)}
    shown: dict[str, FloatArray] = {}
    for name, make in CONTESTANTS.items():
        longest = counts[-1] * (1 if name == "aging_evolution" else ALLOWED)
        found = np.array([[best_rewards(make, place, longest, seed) for seed in seeds] for place in places])
        shown[name] = found
        for count in (count for count in (*counts, ALLOWED * counts[-1]) if count <= longest):
            metrics[f"reward.{name}.{count}"] = float(found[:, :, count - 1].mean())
        if name != "aging_evolution":
            metrics |= ratios(name, shown["aging_evolution"], found, counts, [place.device for place in places])
    if not options.quick:
        draw({name: found.mean(axis=(0, 1)) for name, found in shown.items()}, PICTURE)
    return metrics


def best_rewards(make: Callable[[], Strategy], place: Ground, evaluations: int, seed: int) -> FloatArray:
    """The best reward after each distinct evaluation ``(evaluations,)``."""
    search = simulate(
        make, place.problem("reward"), place.accuracy, evaluations=evaluations, batch=BATCH, seed=seed, rebuild=False
    )
    return np.maximum.accumulate(-search.history.losses[:, 0])


def ratios(
    name: str, reference: FloatArray, found: FloatArray, counts: tuple[int, ...], devices: list[str]
) -> dict[str, float]:
    """Evaluations in units of aging evolution's, until the mean over seeds is the same, of each device and of the mean
    of devices; ``reached`` says whether it ever was, else the ratio is what was allowed.

    Args:
        name: Of the contestant.
        reference, found: Best rewards ``(devices, seeds, evaluations)``.
        counts: Evaluations of aging evolution.
        devices: Their names.
    """
    metrics: dict[str, float] = {}
    for count in counts:
        curves = [*found.mean(axis=1), found.mean(axis=(0, 1))]
        targets = [*reference[:, :, count - 1].mean(axis=1), reference[:, :, count - 1].mean()]
        for device, curve, target in zip((*devices, "mean"), curves, targets, strict=True):
            within = curve[: ALLOWED * count] >= target
            key = f"{name}.{count}.{device}"
            metrics[f"reached.{key}"] = float(within.any())
            metrics[f"evaluations_ratio.{key}"] = float((within.argmax() + 1) / count) if within.any() else ALLOWED
    return metrics


def draw(curves: Mapping[str, FloatArray], path: Path) -> None:
    """Best reward against evaluations, mean of devices and seeds."""
    from gnomon.reports import figure as style

    labels = {
        "aging_evolution": "aging evolution",
        "controller": "controller, PPO",
        "controller_reinforce": "controller, REINFORCE",
    }
    with style.drawing() as (figure, axes):
        for (name, curve), color in zip(curves.items(), (style.GREY, style.BLUE, style.ORANGE), strict=True):
            count = np.arange(1, len(curve) + 1)
            axes.plot(count[19:], curve[19:], color=color, linewidth=2, label=labels[name])
        axes.set_xlabel("distinct evaluations")
        axes.set_ylabel("best reward so far")
        axes.legend(loc="lower right")
        style.save(figure, path)


if __name__ == "__main__":
    main_with("controller", run, argparse.ArgumentParser(description=run.__doc__), seeds=SEEDS)
