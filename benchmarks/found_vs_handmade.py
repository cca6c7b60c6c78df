"""What a search finds against hand-made networks: ``python -m benchmarks.found_vs_handmade``.

The hand-made side is whole fronts: five families x six widths x up to three stages cut (:mod:`benchmarks.handmade`).
Both sides are trained alike from scratch by the task's recipe for 16 epochs, and measured together, in one
interleaved session of ``protocol=thorough``, on ONNX Runtime on this machine.

1. Our side is what one ``gnomon search`` returned (all models it accepted); random search is the same command with
   ``strategy=random`` and the same budget.
2. Every hand-made network is measured. Those up to ``SLOWEST`` times as slow as the slowest that was found are screened
   by one training (seed 100): a network slower than all of ours cannot be faster at an accuracy that ours reach.
3. Near the front are those whose screened *validation* accuracy is at most one point below the best of any network as
   fast or faster, among all families or within MobileNetV2's own. These and ours are trained with five other seeds.
4. Fronts are chosen by mean validation accuracy and compared by mean test accuracy: ``<task>.speedup_vs_<whom>`` is
   the geometric mean, over the accuracies that both fronts reach, of the ratio of latencies at equal accuracy,
   interpolated between networks. ``_least`` and ``_most`` are over these accuracies, ``_low`` and ``_high`` a 90 %
   interval over seeds. ``_margin``: the same with 0.3 points added to the accuracy of the other side.

Trainings, studies and measurements are kept (``--trainings``, ``--studies``) and not repeated; ``--kept`` goes on from
the committed trainings and searches. Needs the animal silhouettes: ``pip install --no-deps animal-mnist==0.4``.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._common import ROOT, kept_figures, main_with
from benchmarks._fronts import Point, Speedup, front, near_front, speedup
from benchmarks._kept import add_argument, kept_of
from benchmarks._studies import STUDIES, load_protocol, measure_together, run_search
from benchmarks._trainings import SpaceNetwork, Training, TrainingResult, TrainingStore, add_arguments, run_all, task_of
from benchmarks.handmade import CUTS, FAMILIES, WIDTHS, HandMade, handmade_networks
from gnomon.conf.compose import compose
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.records.store import MeasurementStore
from gnomon.search.measuring import measure_all
from gnomon.search.setup import make_space
from gnomon.search_spaces import Deployable, space_from_spec

SEEDS = (0, 1, 2, 3, 4)
SCREENING_SEED = 100
SLOWEST = 1.5
"""Of the slowest found network's latency."""
NEAR = 0.01
MARGIN = 0.003
EPOCHS = 16.0
PICTURES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Plan:
    """One task.

    Args:
        name: In the metrics.
        task: Words of ``gnomon search`` that choose it.
        search: Further words, the same for our search and for random search.
        widths, cuts: Of hand-made networks.
        epochs: Of every training.
        seeds: Of the trainings that are compared.
        protocol: Of the final measurement.
    """

    name: str
    task: tuple[str, ...]
    search: tuple[str, ...]
    widths: tuple[float, ...] = WIDTHS
    cuts: tuple[int, ...] = CUTS
    epochs: float = EPOCHS
    seeds: tuple[int, ...] = SEEDS
    protocol: str = "thorough"


SEARCH = ("experiment=small_cnn", "study.seed=0", f"finalise.budget={EPOCHS:g}")
PLANS = (
    Plan("animals", ("task=animals",), SEARCH),
    Plan("mnist", ("task=mnist_subset",), SEARCH),
)
QUICK = Plan(
    "digits",
    ("task=digits",),
    ("experiment=quick", "space=small_cnn", "space.width=0.5", "study.workers=1"),
    widths=(0.25, 0.5),
    cuts=(2, 3),
    epochs=2.0,
    seeds=(0, 1),
    protocol="quick",
)


def run(options: argparse.Namespace) -> dict[str, float]:
    """How many times faster found networks are than hand-made ones of equal accuracy."""
    metrics: dict[str, float] = {}
    for plan in (QUICK,) if options.quick else PLANS:
        if options.task not in (None, plan.name):
            continue
        found = _Comparison(plan, options).run()
        metrics |= {f"{plan.name}.{key}": value for key, value in found.items()}
    if options.task is None or options.quick:
        return metrics
    return {**kept_figures("found_vs_handmade", [plan.name for plan in PLANS if plan.name != options.task]), **metrics}


Networks = Mapping[str, HandMade | SpaceNetwork]
"""By name in tables and plots."""


class _Comparison:
    """One task, from the first measurement to the figures."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        self.plan, self.options = plan, options
        self.kept = kept_of(options)
        self.trainings = TrainingStore(options.trainings, self.kept)
        self.device = OnnxRuntimeDevice()

    def run(self) -> dict[str, float]:
        ours, random_search = self._searched("ours"), self._searched("random_search", "strategy=random")
        screened = self._screened(SLOWEST * max(self._measured([*ours.values(), *random_search.values()])))
        sides: dict[str, Networks] = {
            "handmade": {network.name: network for network in worth_training(screened)},
            "ours": ours,
            "random_search": random_search,
        }
        points = self._points(sides)
        comparisons = {
            "best_handmade": points["handmade"],
            "mobilenetv2": [p for p in points["handmade"] if p.name.startswith("mobilenet_v2-")],
            "random_search": points["random_search"],
        }
        metrics: dict[str, float] = {"handmade.screened": len(screened), "handmade.near_front": len(sides["handmade"])}
        for name, others in comparisons.items():
            metrics |= figures(f"speedup_vs_{name}", points["ours"], others)
        for side, members in points.items():
            metrics |= {f"{side}.{point.name}.{key}": value for point in members for key, value in _shown(point)}
        if not self.options.quick:
            draw(points, self.plan.name, PICTURES / f"found_vs_handmade_{self.plan.name}.png")
        return metrics

    # ---- Hand-made networks --------------------------------------------------------------------

    def _screened(self, slowest_ms: float) -> dict[HandMade, tuple[float, float]]:
        """Latency in ms and validation accuracy, in one training, of the networks that are not too slow."""
        task = task_of(self.plan.task)
        networks = handmade_networks(task.input_shape, len(task.labels), widths=self.plan.widths, cuts=self.plan.cuts)
        latency = {
            network: latency_ms
            for network, latency_ms in zip(networks, self._measured(networks), strict=True)
            if latency_ms <= slowest_ms
        }
        jobs = {network: Training(network, self.plan.task, self.plan.epochs, SCREENING_SEED) for network in latency}
        results = self._train(list(jobs.values()), "screening")
        return {network: (latency[network], results[job].validation_accuracy) for network, job in jobs.items()}

    def _measured(self, networks: Sequence[HandMade | SpaceNetwork]) -> list[float]:
        """Latencies in ms, measured once: to choose by, not to compare."""
        store = MeasurementStore(self.options.studies / "measurements.sqlite")
        protocol = load_protocol("quick" if self.options.quick else "default")
        deployables = [_deployable(network) for network in networks]
        measured = measure_all(self.device, protocol, store, deployables, seed=0, chunk=16)
        return [measurement.latency_ms for measurement in measured]

    # ---- Searched networks ---------------------------------------------------------------------

    def _searched(self, name: str, *words: str) -> dict[str, SpaceNetwork]:
        """What ``gnomon search`` accepts, by key."""
        own = [*self.plan.task, *self.plan.search, *words]
        space = make_space(compose("search", own).space, task_of(self.plan.task), [])
        keys = self.kept.search(f"{self.plan.name}_{name}", own, lambda: self._accepted(name, own))
        return {key.replace(".", ""): SpaceNetwork.of(space, space.algebra.from_key(key)) for key in keys}

    def _accepted(self, name: str, words: Sequence[str]) -> list[str]:
        """Keys of what a search accepts; the study goes on where it was."""
        summary = run_search(self.options.studies / f"{self.plan.name}_{name}", self.options.studies, words)
        return [model.key for model in summary.models if model.accepted]

    # ---- Both ----------------------------------------------------------------------------------

    def _points(self, sides: Mapping[str, Networks]) -> dict[str, list[Point]]:
        """All networks of all sides, trained with all seeds, measured in one session."""
        everything = {name: network for networks in sides.values() for name, network in networks.items()}
        jobs = {
            name: [Training(network, self.plan.task, self.plan.epochs, seed) for seed in self.plan.seeds]
            for name, network in everything.items()
        }
        results = self._train([job for group in zip(*jobs.values(), strict=True) for job in group], "trainings")
        latency = self._latencies(everything)

        def point(name: str) -> Point:
            found = [results[job] for job in jobs[name]]
            return Point(
                name,
                latency[name],
                tuple(result.validation_accuracy for result in found),
                tuple(result.test_accuracy for result in found),
            )

        return {side: [point(name) for name in networks] for side, networks in sides.items()}

    def _latencies(self, networks: Networks) -> dict[str, float]:
        """Measured together, in ms."""
        deployables = {name: _deployable(network) for name, network in networks.items()}
        measured = measure_together(self.device, deployables, load_protocol(self.plan.protocol))
        return {name: measurement.latency_ms for name, measurement in measured.items()}

    def _train(self, jobs: Sequence[Training], title: str) -> dict[Training, TrainingResult]:
        title = f"{self.plan.name} {title}"
        return run_all(jobs, self.trainings, processes=self.options.processes, title=title)


def worth_training(screened: Mapping[HandMade, tuple[float, float]]) -> list[HandMade]:
    """Those near the front of all, or near that of MobileNetV2's, which is compared, too."""
    own = {network: value for network, value in screened.items() if network.family == "mobilenet_v2"}
    chosen = near_front(screened, NEAR) | near_front(own, NEAR)
    return [network for network in screened if network in chosen]


def figures(name: str, ours: Sequence[Point], others: Sequence[Point]) -> dict[str, float]:
    """Of one comparison. Where the fronts reach no common accuracy, only ``_common`` (0) is given."""
    found = speedup(ours, others)
    if found is None:
        print(f"{name}: the fronts reach no common accuracy", file=sys.stderr)
        return {f"{name}_common": 0.0}
    plain = dataclasses.asdict(found)
    metrics = {name: found.mean, **{f"{name}_{key}": value for key, value in plain.items() if key != "mean"}}
    clear: Speedup | None = speedup(ours, others, margin=MARGIN)
    if clear is not None:
        metrics[f"{name}_margin"] = clear.mean
    return metrics


def draw(points: Mapping[str, Sequence[Point]], task: str, path: Path) -> None:
    """Mean test accuracy against latency; a line joins each front, which validation chose."""
    from gnomon.reports import figure as style

    sides: dict[str, Sequence[Point]] = {
        "found": points["ours"],
        "random search": points["random_search"],
        **{
            family.replace("_", " "): [p for p in points["handmade"] if p.name.startswith(f"{family}-")]
            for family in FAMILIES
        },
    }
    with style.drawing() as (figure, axes):
        for number, (label, members) in enumerate(sides.items()):
            if not members:
                continue
            color = f"C{number}"
            axes.scatter(*_places(members), s=14, color=color, alpha=0.5)
            axes.plot(*_places(front(members)), color=color, linewidth=2.0 if number == 0 else 1.0, label=label)
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)
        axes.set_xlabel("latency (ms), ONNX Runtime, 1 thread")
        axes.set_ylabel(f"test accuracy (%), {task}")
        axes.legend(frameon=False, loc="lower right")
        style.save(figure, path)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.latency_ms for point in points], [100.0 * float(np.mean(point.test)) for point in points]


def _shown(point: Point) -> list[tuple[str, float]]:
    return [
        ("latency_ms", point.latency_ms),
        ("validation_accuracy", float(np.mean(point.validation))),
        ("test_accuracy", float(np.mean(point.test))),
    ]


def _deployable(network: HandMade | SpaceNetwork) -> Deployable:
    if isinstance(network, HandMade):
        return network.deployable()
    spec = network.spec()
    space = space_from_spec(spec["space"])
    return space.deployable(space.config(space.algebra.from_key(spec["key"])))


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    parser.add_argument("--studies", type=Path, default=STUDIES, metavar="FOLDER", help="searches and measurements")
    tasks = [plan.name for plan in (*PLANS, QUICK)]
    parser.add_argument("--task", choices=tasks, help="only this task; results keep the others'")
    add_argument(parser, "found_vs_handmade")
    main_with("found_vs_handmade", run, parser, seeds=SEEDS)
