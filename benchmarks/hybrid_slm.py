"""Found hybrid language models against models of one mixer: ``python -m benchmarks.hybrid_slm``.

Each family gets the same search over depth, width, feed-forwards and KV heads, with the same short training as quality
and the same measurements of latency per token at context 4096: full attention, sliding window only, each linear mixer
alone, hybrids, and random hybrids at the same budget. The best of each family's front are then trained alike from
scratch on bytes of the standard library (windows of 1024 tokens, the last tenth of 4096; a tenth of the windows ask for
keys and values far apart) and measured together through ONNX Runtime on one thread.

For either context: quality is bits per byte at positions that have as much context, 512 to 1023 and 2048 to 4095.
``context<C>.speedup_at_equal_quality``: latency of the front of full attention over that of the found hybrids, at each
quality of attention that hybrids reach or exceed, geometric mean, 90 % interval over seeds. Hybrids whose recall at the
longest distance is more than .05 below that of the best full attention are left out.
``context<C>.speedup_over_<family>``: the same against each other family.
``context<C>.bpb_gain_at_equal_latency``: bits per byte that the found ones save.
``model.<model>.ms_<C>``, ``.bits_<C>``, ``.recall``: of each.

Our hybrids and full attention are trained with three seeds, the other families with the first one.

Trainings and searches are kept and not repeated; ``--kept`` goes on from the committed ones.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks._common import ROOT, main_with
from benchmarks._fronts import Point, front, speedup
from benchmarks._kept import add_argument, kept_of
from benchmarks._language import LanguageResult, LanguageTraining, deployable_of, make_space
from benchmarks._studies import STUDIES, load_protocol, measure_together, run_search
from benchmarks._trainings import SpaceNetwork, TrainingStore, add_arguments, run_all
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.records import StudySummary

PICTURES = ROOT / "docs" / "images"
SEEDS = (0, 1, 2)
OURS, FULL = "hybrid", "attention"
RECALL_MARGIN = 0.05
GRID = 50


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Args:
        task: Words of ``gnomon search``.
        space: Likewise; without mixers.
        families: Mixers of each, by name.
        search: Words of every search.
        ranges: Name of the quality, by context.
        recall: Name of the recall that hybrids must not lose.
        kept: Of each front.
        epochs: Of a full training.
        seeds: Of trainings of found hybrids and of full attention; the first one is that of the other families.
        protocol: Of the last measurement.
    """

    task: tuple[str, ...]
    space: tuple[str, ...]
    families: Mapping[str, tuple[str, ...]]
    search: tuple[str, ...]
    ranges: Mapping[int, str]
    recall: str
    kept: int = 3
    epochs: float = 4.0
    seeds: tuple[int, ...] = SEEDS
    protocol: str = "default"

    def space_words(self, family: str) -> tuple[str, ...]:
        """Of one family's search; names of mixers only, so that they go through a command line as they are."""
        return (*self.space, f"space.mixers=[{','.join(self.families[family])}]")


MIXED = ("attention", "sliding_window", "mamba2", "deltanet", "gated_deltanet", "gla")
PLAN = Plan(
    task=(
        *("task=python_stdlib", "task.length=1024", "task.last_length=4096", "task.tokens_per_epoch=131072"),
        *(
            "task.training.batch_size=4",
            "task.ranges=[[512,1023],[2048,4095]]",
            "task.scored=24",
            "task.scored_test=48",
        ),
        "task.recall={distances:[600,3000],pairs:8,share:0.1}",
    ),
    space=(
        *("space=hybrid_slm", "space.widths=[64,96,128,160]", "space.blocks=[1,2]", "space.ffns=[0,1]"),
        *("space.max_operators=16", "space.windows=[256]", "space.kv_heads=[1,2]", "space.context=4090"),
    ),
    families={FULL: (FULL,), **{kind: (kind,) for kind in MIXED[1:]}, OURS: MIXED, "random_hybrid": MIXED},
    search=(
        *("quality.epochs=1", "objective.metrics=[quality,latency_ms]", "study.evaluations=16", "study.seed=0"),
        "study.workers=2",
    ),
    ranges={1024: "512_1023", 4096: "2048_4095"},
    recall="recall_3000",
)
QUICK = Plan(
    task=(
        *("task=python_stdlib", "task.data.max_bytes=1500000", "task.length=64", "task.tokens_per_epoch=1024"),
        *("task.training.batch_size=4", "task.ranges=[[16,31],[32,63]]", "task.scored=4", "task.scored_test=4"),
        "task.recall={distances:[16],pairs:2,share:0.1,sequences:4}",
    ),
    space=(*("space=hybrid_slm", "space.widths=[32,64]", "space.blocks=[1]", "space.ffns=[0,1]"), "space.windows=[8]"),
    families={FULL: (FULL,), OURS: (FULL, "sliding_window")},
    search=(
        *("quality.epochs=1", "objective.metrics=[quality,latency_ms]", "study.evaluations=4", "study.references=6"),
        *("study.refinements=0", "study.workers=1", "protocol=quick"),
    ),
    ranges={32: "16_31", 64: "32_63"},
    recall="recall",
    kept=2,
    epochs=1.0,
    seeds=(0, 1),
    protocol="quick",
)


@dataclass(frozen=True)
class Member:
    """A network of a family with what its trainings gave."""

    name: str
    network: SpaceNetwork
    results: Sequence[LanguageResult]

    def mean(self, split: str, figure: str) -> float:
        """Of a figure, over seeds."""
        return float(np.mean([getattr(result, split)[figure] for result in self.results]))

    def point(self, latency_ms: float, quality: str) -> Point:
        """With ``likelihood_per_byte_<quality>``."""
        name = f"likelihood_per_byte_{quality}"
        values = [tuple(getattr(r, split)[name] for r in self.results) for split in ("validation", "test")]
        return Point(self.name, latency_ms, *values)


@dataclass
class Comparison:
    """All families, from searches to figures."""

    plan: Plan
    options: argparse.Namespace
    families: dict[str, list[Member]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kept = kept_of(self.options)

    def run(self) -> dict[str, float]:
        found = {family: self.found(family) for family in self.plan.families}
        self.train(found)
        metrics: dict[str, float] = {}
        for context, quality in self.plan.ranges.items():
            points = self.measured(context, quality)
            metrics |= {f"context{context}.{key}": value for key, value in self.figures(points).items()}
            for point in itertools.chain.from_iterable(points.values()):
                metrics[f"model.{point.name}.ms_{context}"] = point.latency_ms
                metrics[f"model.{point.name}.bits_{context}"] = bits(point)
            if not self.options.quick:
                draw(points, context, PICTURES / f"hybrid_slm_{context}.png")
        return metrics | {
            f"model.{member.name}.recall": member.mean("test", self.plan.recall)
            for members in self.families.values()
            for member in members
        }

    def found(self, family: str) -> dict[str, SpaceNetwork]:
        """The front of a family's search, by name."""
        words = self.plan.space_words(family)
        space = make_space(self.plan.task, words)
        keys = self.kept.search(family, self._search_words(family), lambda: self._searched(family))
        return {
            f"{family}{number}": SpaceNetwork.of(space, space.algebra.from_key(key)) for number, key in enumerate(keys)
        }

    def _search_words(self, family: str) -> list[str]:
        strategy = ("strategy=random",) if family.startswith("random") else ()
        words = self.plan.space_words(family)
        return [*self.plan.task, *words, *self.plan.search, *strategy, "finalise.enabled=false"]

    def _searched(self, family: str) -> list[str]:
        folder = self.options.studies.absolute() / f"hybrid_slm_{'quick_' if self.options.quick else ''}{family}"
        return spread_keys(run_search(folder, self.options.studies, self._search_words(family)), self.plan.kept)

    def train(self, found: Mapping[str, Mapping[str, SpaceNetwork]]) -> None:
        """All members with all their seeds, a seed after the other, so that an unfinished run has all members."""
        plan = self.plan
        jobs = {
            name: [
                LanguageTraining(network, plan.task, plan.epochs, seed)
                for seed in (plan.seeds if family in (OURS, FULL) else plan.seeds[:1])
            ]
            for family, members in found.items()
            for name, network in members.items()
        }
        by_seed = sorted((job for group in jobs.values() for job in group), key=lambda job: plan.seeds.index(job.seed))
        store = TrainingStore(self.options.trainings, self.kept)
        results = run_all(by_seed, store, processes=self.options.processes, title="hybrid_slm")
        self.families = {
            family: [Member(name, network, [results[job] for job in jobs[name]]) for name, network in members.items()]
            for family, members in found.items()
        }

    def measured(self, context: int, quality: str) -> dict[str, list[Point]]:
        """Points of each family at a context, measured together."""
        deployables = {}
        for members in self.families.values():
            for member in members:
                made = deployable_of(member.network)
                workload = replace(made.workload, context=min(context, self._longest()), phase="step")
                deployables[member.name] = deployable_of(member.network, workload)
        measured = measure_together(OnnxRuntimeDevice(), deployables, load_protocol(self.plan.protocol))
        return {
            family: [member.point(measured[member.name].latency_ms, quality) for member in members]
            for family, members in self.families.items()
        }

    def _longest(self) -> int:
        spaces = {make_space(self.plan.task, self.plan.space_words(family)) for family in self.plan.families}
        return min(int(space.workload.context or 1) for space in spaces)

    def figures(self, points: Mapping[str, list[Point]]) -> dict[str, float]:
        """Of one context."""
        ours = self._that_recall(points[OURS])
        metrics: dict[str, float] = {"found_that_recall": len(ours)}
        for family, theirs in points.items():
            if family == OURS:
                continue
            name = "speedup_at_equal_quality" if family == FULL else f"speedup_over_{family}"
            metrics |= speedup_figures(name, ours, theirs)
        gain = bits_gain(ours, points[FULL])
        return metrics if gain is None else {**metrics, "bpb_gain_at_equal_latency": gain}

    def _that_recall(self, points: Sequence[Point]) -> list[Point]:
        best = min(self.families[FULL], key=lambda member: member.mean("validation", "bits_per_byte"))
        least = best.mean("test", self.plan.recall) - RECALL_MARGIN
        recalls = {member.name: member.mean("test", self.plan.recall) for member in self.families[OURS]}
        return [point for point in points if recalls[point.name] >= least]


def run(options: argparse.Namespace) -> dict[str, float]:
    """How many times faster found hybrids decode than models of one mixer, at equal bits per byte."""
    return Comparison(QUICK if options.quick else PLAN, options).run()


def spread_keys(summary: StudySummary, count: int) -> list[str]:
    """Architectures of a search's front, evenly spread over it from its best quality on."""
    members = [trial for trial in summary.trials if trial.on_front and trial.duplicate_of is None]
    members.sort(key=lambda trial: -(trial.quality or 0.0))
    places = np.unique(np.linspace(0, len(members) - 1, min(count, len(members))).round().astype(int))
    return [members[place].key for place in places]


def speedup_figures(name: str, ours: Sequence[Point], theirs: Sequence[Point]) -> dict[str, float]:
    """With the interval over seeds; only ``<name>_common`` (0) where the fronts reach no common quality."""
    found = speedup(ours, theirs, or_better=True) if ours else None
    if found is None:
        print(f"{name}: the fronts reach no common quality", file=sys.stderr)
        return {f"{name}_common": 0.0}
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def bits_gain(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Bits per byte that the front of ours saves at equal latency, mean over latencies that both fronts span; None
    if there are none. Between its points a front is interpolated over log latency."""
    if not ours:
        return None
    fronts = [front(points) for points in (ours, theirs)]
    ends = [(points[0].latency_ms, points[-1].latency_ms) for points in fronts]
    least, most = max(end[0] for end in ends), min(end[1] for end in ends)
    if least > most:
        return None
    grid = np.log(np.geomspace(least, most, GRID))
    reached = [np.interp(grid, np.log([p.latency_ms for p in points]), [bits(p) for p in points]) for points in fronts]
    return float(np.mean(reached[1] - reached[0]))


def bits(point: Point) -> float:
    """Bits per byte on the test split, of the mean likelihood over seeds."""
    return float(-np.log2(np.mean(point.test)))


def draw(points: Mapping[str, Sequence[Point]], context: int, path: Path) -> None:
    """Bits per byte against latency; a line joins each front, which validation chose."""
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        for number, (family, members) in enumerate(points.items()):
            color, width = f"C{number}", 2.5 if family == OURS else 1.2
            axes.scatter(*_places(members), s=12, color=color, alpha=0.5)
            axes.plot(*_places(front(members)), color=color, linewidth=width, label=family.replace("_", " "))
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)
        axes.set_xlabel(f"ms per token at context {context}, ONNX Runtime, 1 thread")
        axes.set_ylabel("bits per byte, test")
        axes.legend(frameon=False, fontsize="small")
        style.save(figure, path)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.latency_ms for p in points], [bits(p) for p in points]


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    parser.add_argument("--studies", type=Path, default=STUDIES, metavar="FOLDER", help="searches and measurements")
    add_argument(parser, "hybrid_slm")
    main_with("hybrid_slm", run, parser, seeds=SEEDS)
