"""How well a supernet ranks networks that were trained alone: ``python -m benchmarks.supernet_rank``.

24 networks of a space, one from each of 24 strata of equal width in log MACs, are trained from scratch with six
seeds. The mean validation losses of two groups of three seeds agree to Kendall's tau ``<space>.ceiling``: no
predictor of such a mean can be expected to do better. The supernet's figure for each network is the validation loss
with shared weights and recalibrated batch norms; its tau is the mean of those with the two groups, so that it is
compared with means of as many seeds as the ceiling is.

Trainings are kept in ``--trainings`` and not repeated; ``--stand-alone`` does only those.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from benchmarks._common import main_with
from benchmarks._trainings import SpaceNetwork, Training, TrainingResult, TrainingStore, add_arguments, run_all, task_of
from gnomon.search_spaces import Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]

GROUPS = ((0, 1, 2), (3, 4, 5))
SAMPLE = 4096
"""Random architectures of which the strata are made."""


@dataclass(frozen=True)
class Study:
    """One space on one task.

    Args:
        name: In the metrics.
        task: Words of ``gnomon search``.
        space: Words of ``gnomon search`` that choose the space.
        networks: Number of strata.
        epochs: Of a stand-alone training.
    """

    name: str
    task: tuple[str, ...]
    space: tuple[str, ...]
    networks: int = 24
    epochs: float = 16.0

    def make_space(self) -> SearchSpace:
        """The space, with the task's input shape and classes."""
        from gnomon.conf.compose import compose
        from gnomon.search.setup import make_space

        return make_space(compose("search", [*self.task, *self.space]).space, task_of(self.task), [])


STUDIES = (Study("mobile_cnn", ("task=animals",), ("space=mobile_cnn", "space.width=0.25")),)
"""The width of ``experiment=default``, and the epochs of a search's full trainings."""
QUICK = Study("mobile_cnn", ("task=digits",), ("space=mobile_cnn", "space.width=0.25"), networks=3, epochs=0.2)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Ranks by the supernet against ranks of networks trained alone."""
    metrics: dict[str, float] = {}
    store = TrainingStore(options.trainings)
    for study in (QUICK,) if options.quick else STUDIES:
        space = study.make_space()
        rows = stratified(space, study.networks)
        alone = stand_alone(study, space, rows, store, options.processes)
        metrics |= {f"{study.name}.{key}": value for key, value in ceiling_metrics(space, rows, alone).items()}
    return metrics


def stratified(space: SearchSpace, count: int, seed: int = 0) -> Genotypes:
    """``count`` architectures ``(count, D)`` ascending in MACs: a random one from each stratum of equal width in
    log MACs between the 1 % and the 99 % quantile of random architectures."""
    rng = np.random.default_rng(seed)
    rows = np.unique(space.sample(SAMPLE, rng), axis=0)
    macs = np.log(space.costs(rows).macs.astype(np.float64))
    edges = np.linspace(*np.quantile(macs, [0.01, 0.99]), count + 1)
    stratum = np.searchsorted(edges, macs, side="right") - 1
    chosen = [rng.choice(np.flatnonzero(stratum == index)) for index in range(count)]
    return rows[np.array(chosen)]


@dataclass(frozen=True)
class Alone:
    """Mean figures of networks trained alone ``(G groups, N networks)``: losses in nats, accuracies 0..1."""

    loss: FloatArray
    accuracy: FloatArray
    test_accuracy: FloatArray
    seconds: float


def stand_alone(study: Study, space: SearchSpace, rows: Genotypes, store: TrainingStore, processes: int) -> Alone:
    """Trains each network with every seed. Seeds come in turn, so that an unfinished run has all networks."""
    networks = [SpaceNetwork.of(space, row) for row in rows]
    seeds = [seed for group in GROUPS for seed in group]
    trainings = [Training(network, study.task, study.epochs, seed) for seed in seeds for network in networks]
    results = run_all(trainings, store, processes=processes, title=study.name)

    def means(figure: str) -> FloatArray:
        return np.array([_means(study, networks, group, results, figure) for group in GROUPS])

    return Alone(
        means("validation_loss"),
        means("validation_accuracy"),
        means("test_accuracy"),
        sum(result.seconds for result in results.values()),
    )


def _means(
    study: Study,
    networks: Sequence[SpaceNetwork],
    seeds: Sequence[int],
    results: Mapping[Training, TrainingResult],
    figure: str,
) -> list[float]:
    """Of each network over a group of seeds."""
    return [
        float(np.mean([getattr(results[Training(network, study.task, study.epochs, seed)], figure) for seed in seeds]))
        for network in networks
    ]


def ceiling_metrics(space: SearchSpace, rows: Genotypes, alone: Alone) -> dict[str, float]:
    """Agreement of the two groups, and what costs alone say."""
    costs = space.costs(rows)
    return {
        "ceiling": tau(alone.loss[0], alone.loss[1]),
        "kendall_macs": mean_tau(-costs.macs.astype(np.float64), alone.loss),
        "kendall_parameters": mean_tau(-costs.parameters.astype(np.float64), alone.loss),
        "least_accuracy": float(alone.accuracy.mean(axis=0).min()),
        "most_accuracy": float(alone.accuracy.mean(axis=0).max()),
        "networks": len(rows),
        "training_hours": alone.seconds / 3600.0,
    }


def mean_tau(predicted: FloatArray, groups: FloatArray) -> float:
    """Mean over groups ``(G, N)`` of Kendall's tau with a prediction ``(N,)``; both smaller is better."""
    return float(np.mean([tau(predicted, group) for group in groups]))


def tau(first: FloatArray, second: FloatArray) -> float:
    """Kendall's tau-b."""
    return float(kendalltau(first, second).statistic)


if __name__ == "__main__":
    main_with("supernet_rank", run, add_arguments(argparse.ArgumentParser(description=run.__doc__)), seeds=GROUPS[0])
