"""How well a supernet ranks networks that were trained alone: ``python -m benchmarks.supernet_rank``.

24 networks of a space, one from each of 24 strata of equal width in log MACs, are trained from scratch with six
seeds. The mean validation losses of two groups of three seeds agree to Kendall's tau ``<space>.ceiling``: no
predictor of such a mean can be expected to do better. The supernet's figure for each network is the validation loss
with shared weights and recalibrated batch norms; ``<space>.kendall`` is the mean of its taus with the two groups, so
that it is compared with means of as many seeds as the ceiling is, and ``<space>.ratio_to_ceiling`` is their ratio.
``<space>.regret_top3`` is what the best of the supernet's first three loses against the best of all, in points of
stand-alone validation accuracy (mean of all seeds; of phonemes for ``hat``). Other rules of training stand beside it
as ``<space>.<rule>.*``; with ``tuned_<e>``, each network's part of the first rule's supernet is trained by itself for
e epochs before it is scored. What costs as much stands beside that: ``<space>.short_<e>.kendall``, of trainings from
scratch of e epochs. ``<space>.one_training.kendall``: tau of whole trainings with one seed and the group that it is not
part of.

``step_cost_ratio``: processor seconds of a single-path step of the supernet over those of a step of the same networks
alone, in turns, both with the fused AdamW; of either the least of several repetitions. ``step_cost_ratio_worst`` is
the ratio of the network where it is largest.

Trainings and supernets are kept in ``--trainings`` and not repeated; ``--only alone`` or ``--only supernets`` does
one half and gives no figures, so that the halves can be made in processes of their own; ``--study`` makes one space's
figures and keeps the others'; ``--kept`` goes on from committed trainings.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks._common import ROOT, kept_figures, main_with
from benchmarks._kept import add_argument, kept_of
from benchmarks._sequences import SequenceResult, ValidatedTraining
from benchmarks._trainings import SpaceNetwork, Training, TrainingResult, TrainingStore, add_arguments, run_all, task_of
from gnomon.search_spaces import Genotypes, SearchSpace

if TYPE_CHECKING:
    from gnomon.tasks.supernet_evaluator import SupernetEvaluator

FloatArray = npt.NDArray[np.float64]

GROUPS = ((0, 1, 2), (3, 4, 5))
SAMPLE = 4096
"""Random architectures of which the strata are made."""
SUPERNET_SEED = 0
TIMED_NETWORKS, TIMED_REPEATS = 12, 7
SINGLE_PATH = ("quality=supernet_single_path", "quality.epochs=240")
TUNED_EPOCHS = (1, 4)
PICTURE = ROOT / "docs" / "images" / "supernet_rank.png"


def of_images(result: TrainingResult) -> tuple[float, float]:
    """Validation loss in nats, and accuracy 0..1."""
    return result.validation_loss, result.validation_accuracy


def of_phonemes(result: SequenceResult) -> tuple[float, float]:
    """Validation loss in nats, and accuracy 0..1 of phonemes."""
    return result.validation["loss"], result.validation["phoneme_accuracy"]


@dataclass(frozen=True)
class Study:
    """One space on one task.

    Args:
        name: In the metrics.
        task: Words of ``gnomon search``.
        space: Words of ``gnomon search`` that choose the space.
        networks: Number of strata.
        epochs: Of a stand-alone training.
        rules: Words of ``gnomon search`` that choose the supernet, by name; the first is the one that is judged.
        training: Of one network.
        figures: Loss and accuracy of such a training.
        accuracy: The supernet's name for it.
    """

    name: str
    task: tuple[str, ...]
    space: tuple[str, ...]
    networks: int = 24
    epochs: float = 16.0
    rules: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "single_path": SINGLE_PATH,
            **{f"tuned_{epochs}": (*SINGLE_PATH, f"quality.tune_epochs={epochs}") for epochs in TUNED_EPOCHS},
            "sandwich": ("quality=supernet",),
            "distilled": ("quality=supernet", "quality.rule.distillation=1"),
        }
    )
    training: type[Training] = Training
    figures: Callable[[Any], tuple[float, float]] = of_images
    accuracy: str = "accuracy"

    def make_space(self) -> SearchSpace:
        """The space, with the task's input shape and classes."""
        from gnomon.conf.compose import compose
        from gnomon.search.setup import make_space

        return make_space(compose("search", [*self.task, *self.space]).space, task_of(self.task), [])


STUDIES = (
    Study("mobile_cnn", ("task=animals",), ("space=mobile_cnn", "space.width=0.25")),
    Study(
        "hat",
        ("task=cmudict", "task.fractions=[0.1,0.02,0.05]"),
        ("space=hat",),
        epochs=12.0,
        rules={
            "single_path": ("quality=supernet_single_path", "quality.epochs=96"),
            "sandwich": ("quality=supernet", "quality.epochs=24"),
            "distilled": ("quality=supernet", "quality.epochs=24", "quality.rule.distillation=1"),
        },
        training=ValidatedTraining,
        figures=of_phonemes,
        accuracy="phoneme_accuracy",
    ),
)
"""The width of ``experiment=default``, and the epochs of a search's full trainings; the space and the words of
``experiment=cmudict``."""
QUICK = Study(
    "mobile_cnn",
    ("task=digits",),
    ("space=mobile_cnn", "space.width=0.25"),
    networks=3,
    epochs=0.2,
    rules={"sandwich": ("quality=supernet", "quality.epochs=1")},
)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Ranks by the supernet against ranks of networks trained alone."""
    metrics: dict[str, float] = {}
    store = TrainingStore(options.trainings, kept_of(options))
    points: dict[str, tuple[FloatArray, FloatArray, FloatArray]] = {}
    for study in (QUICK,) if options.quick else STUDIES:
        if options.study not in (None, study.name):
            continue
        space = study.make_space()
        rows = stratified(space, study.networks)
        if options.only != "supernets":
            alone = stand_alone(study, space, rows, store, options.processes)
        if options.only != "alone":
            folder = options.trainings / "supernets"
            rules = {name: words for name, words in study.rules.items() if name in (options.rules or study.rules)}
            shared = {name: supernet(study, space, rows, words, folder) for name, words in rules.items()}
        if options.only is None:
            figures = {**ceiling_metrics(space, rows, alone), **rank_metrics(shared, alone)}
            for epochs in TUNED_EPOCHS:
                losses = short(study, space, rows, epochs, store, options.processes)
                figures[f"short_{epochs}.kendall"] = mean_tau(losses, alone.loss)
            metrics |= {f"{study.name}.{key}": value for key, value in figures.items()}
            macs = space.costs(rows).macs.astype(np.float64)
            points[study.name] = (next(iter(shared.values())).loss, alone.loss.mean(axis=0), macs)
    if options.only is not None:
        raise SystemExit(0)
    if not options.quick:
        draw(points, PICTURE)
    costs = step_cost_ratio(QUICK if options.quick else STUDIES[0])
    return {**of_other_studies(options), **metrics, **costs}


def of_other_studies(options: argparse.Namespace) -> dict[str, float]:
    """Figures that the results hold of studies that are not made now, as trainings of both take hours."""
    if options.study is None or options.quick:
        return {}
    return kept_figures("supernet_rank", [study.name for study in STUDIES if study.name != options.study])


def stratified(space: SearchSpace, count: int, seed: int = 0) -> Genotypes:
    """``count`` architectures ``(count, D)`` ascending in MACs: a random one from each stratum of equal width in
    log MACs between the 1 % and the 99 % quantile of random architectures."""
    rng = np.random.default_rng(seed)
    rows = np.unique(space.sample(SAMPLE, rng), axis=0)
    macs = np.log(space.costs(rows).macs.astype(np.float64))
    least, most = (float(value) for value in np.quantile(macs, [0.01, 0.99]))
    edges = np.linspace(least, most, count + 1)
    stratum = np.searchsorted(edges, macs, side="right") - 1
    chosen = [rng.choice(np.flatnonzero(stratum == index)) for index in range(count)]
    return np.asarray(rows[np.array(chosen)])


@dataclass(frozen=True)
class Alone:
    """Mean figures of networks trained alone ``(G groups, N networks)``: losses in nats, accuracies 0..1."""

    loss: FloatArray
    accuracy: FloatArray
    seconds: float
    one_training: float


def stand_alone(study: Study, space: SearchSpace, rows: Genotypes, store: TrainingStore, processes: int) -> Alone:
    """Trains each network with every seed. Seeds come in turn, so that an unfinished run has all networks."""
    networks = [SpaceNetwork.of(space, row) for row in rows]
    seeds = [seed for group in GROUPS for seed in group]
    trainings = [study.training(network, study.task, study.epochs, seed) for seed in seeds for network in networks]
    results = run_all(trainings, store, processes=processes, title=study.name)
    found = np.array([study.figures(results[training]) for training in trainings])
    grouped = found.reshape(len(GROUPS), -1, len(networks), 2)
    means = grouped.mean(axis=1)
    ones = [tau(own[:, 0], means[1 - group, :, 0]) for group in range(len(GROUPS)) for own in grouped[group]]
    seconds = sum(result.seconds for result in results.values())
    return Alone(means[..., 0], means[..., 1], seconds, float(np.mean(ones)))


def short(
    study: Study, space: SearchSpace, rows: Genotypes, epochs: float, store: TrainingStore, processes: int
) -> FloatArray:
    """Validation losses ``(N,)`` of trainings from scratch that take as long as tuning does."""
    trainings = [study.training(SpaceNetwork.of(space, row), study.task, float(epochs), 0) for row in rows]
    results = run_all(trainings, store, processes=processes, title=f"{study.name}, short")
    return np.array([study.figures(results[training])[0] for training in trainings])


def ceiling_metrics(space: SearchSpace, rows: Genotypes, alone: Alone) -> dict[str, float]:
    """Agreement of the two groups and of single trainings, and what costs alone say."""
    costs = space.costs(rows)
    return {
        "ceiling": tau(alone.loss[0], alone.loss[1]),
        "one_training.kendall": alone.one_training,
        "macs.kendall": mean_tau(-costs.macs.astype(np.float64), alone.loss),
        "parameters.kendall": mean_tau(-costs.parameters.astype(np.float64), alone.loss),
        "least_accuracy": float(alone.accuracy.mean(axis=0).min()),
        "most_accuracy": float(alone.accuracy.mean(axis=0).max()),
        "networks": len(rows),
        "training_hours": alone.seconds / 3600.0,
    }


# ---- The supernet ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """What a supernet says of networks ``(N,)``: validation losses in nats, accuracies 0..1."""

    loss: FloatArray
    accuracy: FloatArray
    training_seconds: float
    scoring_seconds: float


def supernet(study: Study, space: SearchSpace, rows: Genotypes, words: Sequence[str], folder: Path) -> Shared:
    """Trains a supernet, or goes on with it, and scores each network with its part of the weights."""
    evaluator = _evaluator(study, space, words)
    trained = tuple(word for word in words if not word.lstrip("+").startswith("quality.tun"))
    name = sha256(repr((study.task, study.space, trained)).encode()).hexdigest()[:16]
    evaluator.prepare(folder / name, seed=SUPERNET_SEED, progress=_print_progress(study.name))
    evaluations = [evaluator.evaluate(space.architecture(row), seed=0) for row in rows]
    found = [evaluation.metrics for evaluation in evaluations]
    record = evaluator.shared_training()
    assert record is not None
    return Shared(
        np.array([metrics["loss"] for metrics in found]),
        np.array([metrics[study.accuracy] for metrics in found]),
        record.seconds,
        float(np.mean([evaluation.cost_s for evaluation in evaluations])),
    )


def _evaluator(study: Study, space: SearchSpace, words: Sequence[str]) -> SupernetEvaluator:
    from gnomon.conf.compose import compose
    from gnomon.search.instantiate import instantiate

    node = compose("search", [*study.task, *words]).quality
    evaluator: SupernetEvaluator = instantiate(node, "quality", space=space, task=task_of(study.task))
    return evaluator


def _print_progress(name: str) -> Callable[[float, float], None]:
    def show(epochs: float, accuracy: float) -> None:
        print(f"{name} supernet, epoch {epochs:g}: largest network {accuracy:.4f}", file=sys.stderr, flush=True)

    return show


def rank_metrics(shared: Mapping[str, Shared], alone: Alone) -> dict[str, float]:
    """Of the first rule under plain names, of all rules under their own."""
    metrics: dict[str, float] = {}
    ceiling = tau(alone.loss[0], alone.loss[1])
    for name, found in shared.items():
        kendall = mean_tau(found.loss, alone.loss)
        own = {
            "kendall": kendall,
            "ratio_to_ceiling": kendall / ceiling,
            "regret_top3": regret(found.loss, alone.accuracy.mean(axis=0), 3),
            "kendall_accuracy": mean_tau(-found.accuracy, alone.loss),
            "accuracy_lost": 100.0 * float((alone.accuracy.mean(axis=0) - found.accuracy).mean()),
            "supernet_hours": found.training_seconds / 3600.0,
            "scoring_seconds": found.scoring_seconds,
        }
        if not metrics:
            metrics |= own
        metrics |= {f"{name}.{key}": value for key, value in own.items()}
    return metrics


def regret(predicted: FloatArray, accuracy: FloatArray, first: int) -> float:
    """Points of accuracy between the best of all and the best of the ``first`` with the smallest prediction."""
    chosen = np.argsort(predicted, kind="stable")[:first]
    return 100.0 * float(accuracy.max() - accuracy[chosen].max())


def step_cost_ratio(study: Study) -> dict[str, float]:
    """Processor time of single-path steps over that of the same networks alone, selection and optimizer included."""
    import torch

    from gnomon.tasks.image_classification import ImageClassification
    from gnomon.tasks.parallel import Processes
    from gnomon.tasks.torch_state import seeded, torch_threads
    from gnomon.tasks.training import make_optimizer
    from gnomon.tasks.weight_sharing.rule import Lesson
    from gnomon.tasks.weight_sharing.step import take_step

    task, space = task_of(study.task), study.make_space()
    assert isinstance(task, ImageClassification)
    data, settings = task.training_data(), task.training
    batch = next(iter(data.batches(0, 0)))
    least = []
    with torch_threads(1), seeded(0), torch.enable_grad():
        shared = space.elastic().train()
        shared_optimizer = make_optimizer(shared, settings, fused=True)
        for row in stratified(space, TIMED_NETWORKS, seed=1):
            alone = space.build(space.config(row)).train()
            optimizer = make_optimizer(alone, settings, fused=True)

            def shared_step(row: Any = row) -> None:
                shared_optimizer.zero_grad(set_to_none=True)
                take_step(shared, space, data, batch, [Lesson(row)], None, Processes())
                shared_optimizer.step()

            def own_step(model: Any = alone, optimizer: Any = optimizer) -> None:
                optimizer.zero_grad(set_to_none=True)
                data.loss(data.logits(model, batch), batch).backward()
                optimizer.step()

            times = np.array([[_seconds(step) for step in (shared_step, own_step)] for _ in range(TIMED_REPEATS)])
            least.append(times.min(axis=0))
    shared_s, alone_s = np.array(least).T
    return {
        "step_cost_ratio": float(shared_s.sum() / alone_s.sum()),
        "step_cost_ratio_worst": float((shared_s / alone_s).max()),
    }


def _seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


# ---- Figures -----------------------------------------------------------------------------------


def draw(points: Mapping[str, tuple[FloatArray, FloatArray, FloatArray]], path: Path) -> None:
    """Stand-alone loss against the supernet's, a panel a space; darker is more MACs."""
    from gnomon.reports import figure as style

    for name, (shared, alone, macs) in points.items():
        with style.drawing() as (figure, axes):
            dots = axes.scatter(shared, alone, c=np.log10(macs), cmap="viridis_r", s=36)
            figure.colorbar(dots, ax=axes, label="log10 MACs")
            axes.set_xlabel("validation loss with shared weights (nats)")
            axes.set_ylabel("validation loss trained alone (nats)")
            style.save(figure, path.with_name(f"{path.stem}_{name}{path.suffix}"))


def mean_tau(predicted: FloatArray, groups: FloatArray) -> float:
    """Mean over groups ``(G, N)`` of Kendall's tau with a prediction ``(N,)``; both smaller is better."""
    return float(np.mean([tau(predicted, group) for group in groups]))


def tau(first: FloatArray, second: FloatArray) -> float:
    """Kendall's tau-b."""
    return float(kendalltau(first, second).statistic)


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    parser.add_argument("--only", choices=["alone", "supernets"], help="only this half of the trainings; no figures")
    parser.add_argument(
        "--study", choices=[study.name for study in STUDIES], help="only this one; results keep the others'"
    )
    parser.add_argument("--rules", nargs="+", choices=sorted(STUDIES[0].rules), help="only these supernets")
    add_argument(parser, "supernet_rank")
    main_with("supernet_rank", run, parser, seeds=[seed for group in GROUPS for seed in group])
