"""Found transformers against plain ones that write sequences: ``python -m benchmarks.seq2seq_search``.

Two tasks: words to phonemes (``cmudict``, quality: 1 minus the phoneme error rate) and English to German messages of
programs (``gettext``, quality: SacreBLEU, and chrF beside it). Both sides are trained alike from scratch by the task's
recipe, with three seeds, and measured together in one interleaved session of ``protocol=thorough`` through ONNX
Runtime on this machine: the encoder once, then a step a token, at the mean lengths of the train split.

1. Plain transformers: 1 to 6 decoder layers x 2 widths, feed-forwards four times as wide, under an encoder of six
   layers, as HAT compares, and under one of as many layers as the decoder. All are trained with the first seed; with
   the others, too, the deepest and those whose validation quality is then at most ``NEAR`` below the best of any as
   fast or faster. The first seed counts in the comparison, which favours the plain side: it is the best there.
2. Ours: one supernet, trained by drawing a network a step as in HAT, and HAT's evolution in it by its validation loss
   under each of several latency limits (shares of the 6+6 transformer's latency); the best of each search are trained
   from scratch like all others.
3. ``<task>.speedup_vs_best_plain`` compares fronts: chosen by mean validation quality, compared by mean test quality;
   the geometric mean, over the qualities that both reach, of the ratio of latencies at equal quality. ``_least`` and
   ``_most`` are over these qualities, ``_low`` and ``_high`` a 90 % interval over seeds. ``speedup_vs_best_plain_6`` is
   the same against the networks with six encoder layers alone.
4. ``<task>.speedup_vs_6x6``: the fastest of ours whose mean validation quality is at least that of the 6+6 transformer
   (the wider one), against that one; where none is, our best. ``<task>.quality_difference`` is ours minus theirs on
   the test split, with a 95 % interval of a paired bootstrap over sentences and seeds, and its p-value.
   ``_at_6x6_quality`` compares the same network of ours with the fastest plain one that reaches that quality.

Trainings, studies and measurements are kept (``--trainings``, ``--studies``) and not repeated; ``--only plain`` trains
the plain transformers with the first seed without timing anything, for a machine that is busy; ``--kept`` goes on from
the committed trainings and searches. Needs the extras demo and sequences; the packages whose messages are learnt from
are in ``conf/task/gettext_de.yaml``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._common import ROOT, kept_figures, main_with
from benchmarks._fronts import Point, front, near_front, speedup
from benchmarks._kept import add_argument, kept_of
from benchmarks._sequences import (
    Difference,
    SequenceResult,
    SequenceTraining,
    paired_difference,
    pairs_of,
    score_named,
)
from benchmarks._studies import STUDIES, load_protocol, measure_together, run_search
from benchmarks._trainings import SpaceNetwork, TrainingStore, add_arguments, run_all
from gnomon.conf.compose import compose
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.records import Measurement, StudySummary
from gnomon.records.store import MeasurementStore
from gnomon.search.measuring import measure_all
from gnomon.search.setup import make_space
from gnomon.search_spaces import Deployable, SearchSpace, space_from_spec
from gnomon.search_spaces.hat import HATSpace

SEEDS = (0, 1, 2)
NEAR = 0.02
"""Of quality 0..1: by so much may a first training have been unlucky."""
PICTURES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Plan:
    """One task.

    Args:
        name: In the metrics.
        task: Words of ``gnomon search`` that choose it and its recipe.
        metric: Quality, 0..1; ``others`` are compared, too.
        widths: Of plain transformers.
        depth: Layers of the deepest plain decoder, and of its encoder.
        space: Words that choose the space of our searches.
        search: Further words of all our searches.
        supernet: Words of all our searches that choose how the one supernet is trained.
        limits: Latency limits, as shares of the deepest plain transformer's latency.
        kept: The best networks of a search that are trained from scratch.
        epochs: Of every training from scratch.
        seeds: Of those trainings.
        protocol: Of the final measurement.
    """

    name: str
    task: tuple[str, ...]
    metric: str
    others: tuple[str, ...]
    widths: tuple[int, int]
    depth: int
    space: tuple[str, ...]
    search: tuple[str, ...]
    supernet: tuple[str, ...]
    limits: tuple[float, ...]
    kept: int
    epochs: float
    seeds: tuple[int, ...] = SEEDS
    protocol: str = "thorough"

    @property
    def deepest(self) -> str:
        """The plain transformer that all others are compared with."""
        return f"plain_{self.depth}x{self.depth}"

    def make_space(self, words: Iterable[str]) -> HATSpace:
        """A space of the task's vocabularies and lengths."""
        config = compose("search", [*self.task, "space=hat", *words])
        space = make_space(config.space, pairs_of(self.task), [])
        assert isinstance(space, HATSpace)
        return space

    def plain_space(self) -> HATSpace:
        """The space that plain transformers are networks of."""
        depths = list(range(1, self.depth + 1))
        return self.make_space(
            (
                f"space.widths={list(self.widths)}",
                f"space.ffn_widths={[4 * width for width in self.widths]}",
                f"space.encoder_layers={depths}",
                f"space.decoder_layers={depths}",
                "space.attended=[1]",
            )
        )


SPACE = (
    *("space.widths=[48,64,96]", "space.ffn_widths=[96,192,384]"),
    *("space.encoder_layers=[1,2,3,4,5,6]", "space.decoder_layers=[1,2,3,4]"),
)
SEARCH = (
    *("study.evaluations=240", "study.batch=30", "study.seed=0", "study.workers=1"),
    *("strategy.population=60", "strategy.parents=15", "strategy.mutants=30", "strategy.crossovers=30"),
)
LIMITS = (0.17, 0.22, 0.3, 0.42)
PLANS = (
    Plan(
        "cmudict",
        ("task=cmudict", "task.fractions=[0.1,0.02,0.05]", "task.decoded=null"),
        *("phoneme_accuracy", (), (48, 96), 6, SPACE, SEARCH),
        supernet=("quality=supernet_single_path", "quality.epochs=96"),
        limits=LIMITS,
        kept=2,
        epochs=12.0,
    ),
    Plan(
        "gettext",
        ("task=gettext_de", "task.decoded=null"),
        *("bleu", ("chrf",), (48, 96), 6, SPACE, SEARCH),
        supernet=("quality=supernet_single_path", "quality.epochs=128"),
        limits=LIMITS,
        kept=2,
        epochs=16.0,
    ),
)

QUICK_SEARCH = (
    *("study.evaluations=6", "study.batch=3", "study.references=6", "study.refinements=0", "study.workers=1"),
    *("strategy.population=4", "strategy.parents=2", "strategy.mutants=1", "strategy.crossovers=1", "protocol=quick"),
)
QUICK_SPACE = (
    *("space.widths=[16,24]", "space.ffn_widths=[32,64]", "space.qkv_width=16", "space.attended=[1,2]"),
    *("space.encoder_layers=[1,2]", "space.decoder_layers=[1,2]"),
)


def quick_plans(folder: Path) -> tuple[Plan, ...]:
    """Both tasks, tiny; sentences of numbers in place of those that need packages."""
    path = folder / "quick_pairs.tsv"
    _write_pairs(path)
    shared = {
        "supernet": ("quality=supernet_single_path", "quality.epochs=1"),
        "limits": (0.95, 0.98),
        "kept": 1,
        "epochs": 1.0,
        "seeds": (0, 1),
        "protocol": "quick",
    }
    words = ("task=cmudict", "task.fractions=[0.005,0.001,0.002]", "task.decoded=null")
    text = ("task=tsv", f"task.data.path={path}", "task.vocabulary_size=300", "task.max_tokens=24")
    sizes = ((16, 24), 2, QUICK_SPACE, QUICK_SEARCH)
    return (
        Plan("cmudict", words, "phoneme_accuracy", (), *sizes, **shared),  # type: ignore[arg-type]
        Plan("gettext", text, "bleu", ("chrf",), *sizes, **shared),  # type: ignore[arg-type]
    )


def _write_pairs(path: Path) -> None:
    """Sums in two languages."""
    english = ("one", "two", "three", "four", "five", "six", "seven")
    german = ("eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben")
    numbers = itertools.product(range(7), repeat=3)
    lines = [
        f"add {english[a]} and {english[b]} to {english[c]}\taddiere {german[a]} und {german[b]} zu {german[c]}"
        for a, b, c in numbers
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(options: argparse.Namespace) -> dict[str, float]:
    """How many times faster found transformers are than plain ones of equal quality."""
    metrics: dict[str, float] = {}
    for plan in quick_plans(options.studies.absolute()) if options.quick else PLANS:
        if options.task not in (None, plan.name):
            continue
        comparison = _Comparison(plan, options)
        if options.only == "plain":
            comparison.train(comparison.plain(), "plain transformers", plan.seeds[:1])
        else:
            metrics |= {f"{plan.name}.{key}": value for key, value in comparison.run().items()}
    if options.only is not None:
        raise SystemExit(0)
    if options.task is None or options.quick:
        return metrics
    return {**kept_figures("seq2seq_search", [plan.name for plan in PLANS if plan.name != options.task]), **metrics}


Networks = Mapping[str, SpaceNetwork]
"""By name in tables and plots."""


class _Comparison:
    """One task, from the plain transformers to the figures."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        self.plan, self.options = plan, options
        self.device = OnnxRuntimeDevice()
        self.kept = kept_of(options)
        self.results: dict[str, list[SequenceResult]] = {}

    def run(self) -> dict[str, float]:
        every = self.plain()
        sides = {"plain": self.worth_training(every), "ours": self.found()}
        for side, networks in sides.items():
            self.results |= self.train(networks, side, self.plan.seeds)
        deployables = {name: _deployable(network) for side in sides.values() for name, network in side.items()}
        measured = measure_together(self.device, deployables, load_protocol(self.plan.protocol))
        points = {
            side: [self._point(name, measured[name].latency_ms) for name in networks]
            for side, networks in sides.items()
        }
        if not self.options.quick:
            draw(points, self.plan, PICTURES / f"seq2seq_search_{self.plan.name}.png")
        return {
            **self._fronts(points),
            **self._pairs(points),
            "plain.screened": len(every),
            "plain.near_front": len(sides["plain"]),
            "test_pairs": len(pairs_of(self.plan.task).data.references_of("test")),
            "training_hours": sum(r.seconds for results in self.results.values() for r in results) / 3600,
            **{
                f"{side}.{point.name}.{key}": value
                for side, members in points.items()
                for point in members
                for key, value in _shown(point, measured[point.name])
            },
        }

    # ---- Networks ------------------------------------------------------------------------------

    def plain(self) -> dict[str, SpaceNetwork]:
        """Every plain transformer: decoders of each depth, encoders as deep or the deepest."""
        space, deepest = self.plan.plain_space(), self.plan.depth
        widths = ["", f"_w{self.plan.widths[0]}"]
        names = [
            f"plain_{encoder}x{decoder}{width}"
            for decoder in range(deepest, 0, -1)
            for encoder in sorted({decoder, deepest})
            for width in widths
        ]
        return {name: SpaceNetwork.of(space, space.named_genotype(name)) for name in names}

    def worth_training(self, networks: Networks) -> dict[str, SpaceNetwork]:
        """The deepest, and those that a training with the first seed puts near the front."""
        results = self.train(networks, "plain transformers", self.plan.seeds[:1])
        latency = self._latencies([_deployable(network) for network in networks.values()])
        quality = [results[name][0].validation[self.plan.metric] for name in networks]
        near = near_front(dict(zip(networks, zip(latency, quality, strict=True), strict=True)), NEAR)
        return {name: network for name, network in networks.items() if name in near | {self.plan.deepest}}

    def found(self) -> dict[str, SpaceNetwork]:
        """The best of each search, by key."""
        space = self.plan.make_space(self.plan.space)
        found: dict[str, SpaceNetwork] = {}
        for share in self.plan.limits:
            make = functools.partial(self._searched, share)
            for key in self.kept.search(self._folder(share).name, self._words, make):
                found.setdefault(key.replace(".", ""), SpaceNetwork.of(space, space.algebra.from_key(key)))
        return found

    def _searched(self, share: float) -> list[str]:
        """Keys of the best of one search."""
        summary = run_search(self._folder(share), self.options.studies, self._search_words(share))
        return best_keys(summary, self.plan.kept)

    def _folder(self, share: float) -> Path:
        return self.options.studies.absolute() / f"seq2seq_{self.plan.name}_{round(100 * share)}"

    @property
    def _words(self) -> list[str]:
        """What all searches of this task have in common."""
        return [
            *self.plan.task,
            *("task.metric=likelihood", "space=hat", *self.plan.space),
            *self.plan.supernet,
            *("strategy=hat_evolution", "objective.metrics=[quality]", *self.plan.search, "finalise.enabled=false"),
        ]

    def _search_words(self, share: float) -> list[str]:
        """A search under one limit. The first one here trains the supernet, which the others take from it."""
        earlier = self.plan.limits[: self.plan.limits.index(share)]
        files = [self._folder(other) / "supernet" / "supernet.safetensors" for other in earlier]
        trained = next((path for path in files if path.is_file()), None)
        given = [] if trained is None else ["quality.epochs=0", f"quality.weights={trained}"]
        return [*self._words, *given, f"objective.latency_ms={share * self._deepest_ms():.4g}"]

    def _deepest_ms(self) -> float:
        """Latency of the deepest plain transformer, which the limits are shares of; measured once."""
        space = self.plan.plain_space()
        return self._latencies([space.deployable(dict(space.named[self.plan.deepest]))])[0]

    def _latencies(self, deployables: Sequence[Deployable]) -> list[float]:
        """In ms, measured once."""
        store = MeasurementStore(self.options.studies / "measurements.sqlite")
        protocol = load_protocol("quick" if self.options.quick else "default")
        return [each.latency_ms for each in measure_all(self.device, protocol, store, deployables, seed=0)]

    def train(self, networks: Networks, title: str, seeds: Sequence[int]) -> dict[str, list[SequenceResult]]:
        """All networks with all seeds, a seed after the other, so that an unfinished run has all networks."""
        jobs = {
            name: [SequenceTraining(network, self.plan.task, self.plan.epochs, seed) for seed in seeds]
            for name, network in networks.items()
        }
        store, title = TrainingStore(self.options.trainings, self.kept), f"{self.plan.name}: {title}"
        by_seed = [job for group in zip(*jobs.values(), strict=True) for job in group]
        results = run_all(by_seed, store, processes=self.options.processes, title=title)
        return {name: [results[job] for job in group] for name, group in jobs.items()}

    # ---- Figures -------------------------------------------------------------------------------

    def _point(self, name: str, latency_ms: float) -> Point:
        results, metric = self.results[name], self.plan.metric
        validation, test = ([getattr(r, split)[metric] for r in results] for split in ("validation", "test"))
        return Point(name, latency_ms, tuple(validation), tuple(test))

    def _fronts(self, points: Mapping[str, Sequence[Point]]) -> dict[str, float]:
        plain = points["plain"]
        deepest = f"plain_{self.plan.depth}x"
        return {
            **front_figures("speedup_vs_best_plain", points["ours"], plain),
            **front_figures(
                f"speedup_vs_best_plain_{self.plan.depth}",
                points["ours"],
                [point for point in plain if point.name.startswith(deepest)],
            ),
        }

    def _pairs(self, points: Mapping[str, Sequence[Point]]) -> dict[str, float]:
        """Our network that reaches the deepest one's quality, against that one and the fastest plain one."""
        target = next(point for point in points["plain"] if point.name == self.plan.deepest)
        ours = fastest_as_good(points["ours"], target)
        metrics: dict[str, float] = {}
        for other, where in ((target, ""), (fastest_as_good(points["plain"], target), "_at_6x6_quality")):
            metrics["speedup_vs_6x6" if not where else f"speedup{where}"] = other.latency_ms / ours.latency_ms
            for metric, name in ((self.plan.metric, "quality"), *((other, other) for other in self.plan.others)):
                metrics |= difference_figures(f"{name}_difference{where}", self._difference(metric, ours, other))
        return metrics

    def _difference(self, metric: str, ours: Point, other: Point) -> Difference:
        score = score_named(metric, pairs_of(self.plan.task).data.references_of("test"))
        first, second = ([result.written for result in self.results[point.name]] for point in (ours, other))
        return paired_difference(score, first, second)


def best_keys(summary: StudySummary, count: int) -> list[str]:
    """Architectures within the limit, best quality first."""
    trials = [
        trial
        for trial in summary.trials
        if trial.quality is not None and trial.feasible and trial.duplicate_of is None and trial.state == "complete"
    ]
    return [trial.key for trial in sorted(trials, key=lambda trial: -(trial.quality or 0.0))[:count]]


def fastest_as_good(points: Sequence[Point], target: Point) -> Point:
    """The fastest whose mean validation quality is at least the target's; where none is, the best."""
    least = np.mean(target.validation)
    good = [point for point in points if np.mean(point.validation) >= least]
    if good:
        return min(good, key=lambda point: point.latency_ms)
    return max(points, key=lambda point: float(np.mean(point.validation)))


def front_figures(name: str, ours: Sequence[Point], others: Sequence[Point]) -> dict[str, float]:
    """Of one comparison of fronts. Where they reach no common quality, only ``_common`` (0) is given."""
    found = speedup(ours, others)
    if found is None:
        print(f"{name}: the fronts reach no common quality", file=sys.stderr)
        return {f"{name}_common": 0.0}
    figures = {key.replace("accuracy", "quality"): value for key, value in dataclasses.asdict(found).items()}
    return {name: figures.pop("mean"), **{f"{name}_{key}": value for key, value in figures.items()}}


def difference_figures(name: str, found: Difference) -> dict[str, float]:
    """Of one paired comparison."""
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_p": found.p_value}


def draw(points: Mapping[str, Sequence[Point]], plan: Plan, path: Path) -> None:
    """Mean test quality against latency; a line joins each front, which validation chose."""
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        for number, (label, members) in enumerate({"found": points["ours"], "plain": points["plain"]}.items()):
            axes.scatter(*_places(members), s=14, color=f"C{number}", alpha=0.5)
            axes.plot(*_places(front(members)), color=f"C{number}", linewidth=2.0, label=label)
        axes.set_xscale("log")
        style.log_ticks(axes.xaxis)
        axes.set_xlabel("latency (ms), ONNX Runtime, 1 thread")
        axes.set_ylabel(f"test {plan.metric.replace('_', ' ')} (%), {plan.name}")
        axes.legend(frameon=False, loc="lower right")
        style.save(figure, path)


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.latency_ms for point in points], [100.0 * float(np.mean(point.test)) for point in points]


def _shown(point: Point, measurement: Measurement) -> list[tuple[str, float]]:
    return [
        ("latency_ms", point.latency_ms),
        *((f"{graph}_ms", float(value)) for graph, value in measurement.parts.items()),
        ("validation", float(np.mean(point.validation))),
        ("test", float(np.mean(point.test))),
    ]


def _deployable(network: SpaceNetwork) -> Deployable:
    spec = network.spec()
    space: SearchSpace = space_from_spec(spec["space"])
    return space.deployable(space.config(space.algebra.from_key(spec["key"])))


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    parser.add_argument("--studies", type=Path, default=STUDIES, metavar="FOLDER", help="searches and measurements")
    parser.add_argument(
        "--task", choices=[plan.name for plan in PLANS], help="only this task; results keep the others'"
    )
    parser.add_argument("--only", choices=["plain"], help="only train the plain transformers; nothing is timed")
    add_argument(parser, "seq2seq_search")
    main_with("seq2seq_search", run, parser, seeds=SEEDS)
