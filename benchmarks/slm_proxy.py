"""Whether a short training ranks language models as a long one does: ``python -m benchmarks.slm_proxy``.

12 random hybrids of ``hybrid_slm`` (attention, sliding window, Mamba2, DeltaNet) learn bytes of the standard library,
once for an epoch and once, with another seed, for eight. ``spearman`` is the rank correlation of their bits per byte on
held-out files; ``spearman_parameters`` and ``spearman_macs`` are those of size alone with the long training, and
``seed_spearman`` that of two short trainings of different seeds. Nemotron-Flash (2511.18890) found .888 for its proxy.

Trainings are kept in ``--trainings`` and not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, spearmanr

from benchmarks._common import ROOT, main_with
from benchmarks._language import QUICK_TASK, TASK, LanguageTraining, make_space
from benchmarks._trainings import SpaceNetwork, TrainingStore, add_arguments, run_all
from gnomon.search_spaces.variation import distinct

FloatArray = npt.NDArray[np.float64]

PICTURE = ROOT / "docs" / "images" / "slm_proxy.png"
SHORT_SEEDS, LONG_SEED = (0, 1), 2


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Args:
        task, space: Words of ``gnomon search``.
        networks: Random ones.
        short, long: Epochs.
    """

    task: tuple[str, ...]
    space: tuple[str, ...]
    networks: int
    short: float
    long: float


PLAN = Plan(
    TASK,
    (
        *("space=hybrid_slm", "space.mixers=[attention,sliding_window,mamba2,deltanet]", "space.windows=[128]"),
        *("space.widths=[64,96,128]", "space.blocks=[1,2]", "space.ffns=[0,1]", "space.max_operators=16"),
    ),
    networks=12,
    short=1.0,
    long=8.0,
)
QUICK = Plan(
    QUICK_TASK,
    (
        *("space=hybrid_slm", "space.mixers=[attention,deltanet]", "space.widths=[32]", "space.blocks=[1]"),
        "space.ffns=[0,1]",
    ),
    networks=4,
    short=1.0,
    long=2.0,
)


def run(options: argparse.Namespace) -> dict[str, float]:
    """Rank correlation of a short training with a long one."""
    plan = QUICK if options.quick else PLAN
    space = make_space(plan.task, plan.space)
    rows = distinct(space, space.sample(4 * plan.networks, np.random.default_rng(0)))[: plan.networks]
    networks = [SpaceNetwork.of(space, row) for row in rows]
    kinds = {
        "short": (plan.short, SHORT_SEEDS[0]),
        "again": (plan.short, SHORT_SEEDS[1]),
        "long": (plan.long, LONG_SEED),
    }
    jobs = {kind: [LanguageTraining(network, plan.task, *of) for network in networks] for kind, of in kinds.items()}
    every = [job for group in jobs.values() for job in group]
    results = run_all(every, TrainingStore(options.trainings), processes=options.processes, title="slm_proxy")
    bits = {kind: np.array([results[job].validation["bits_per_byte"] for job in group]) for kind, group in jobs.items()}
    if not options.quick:
        draw(bits["short"], bits["long"], plan)
    costs = space.costs(rows)
    return {
        **figures(bits, {"parameters": costs.parameters, "macs": costs.macs}),
        "networks": len(rows),
        **{f"{kind}.hours": sum(results[job].seconds for job in group) / 3600 for kind, group in jobs.items()},
    }


def figures(bits: Mapping[str, FloatArray], sizes: Mapping[str, FloatArray]) -> dict[str, float]:
    """Rank correlations with the long training; what is small of bits, and large of a size, is expected to be good."""
    long = bits["long"]
    best = int(np.argmin(bits["short"]))
    return {
        "spearman": _spearman(bits["short"], long),
        "kendall": float(kendalltau(bits["short"], long).statistic),
        "seed_spearman": _spearman(bits["short"], bits["again"]),
        **{f"spearman_{name}": _spearman(-size, long) for name, size in sizes.items()},
        "bits_lost_by_the_choice": float(long[best] - long.min()),
        "long.least_bits_per_byte": float(long.min()),
        "long.most_bits_per_byte": float(long.max()),
    }


def _spearman(one: Sequence[float] | FloatArray, other: Sequence[float] | FloatArray) -> float:
    return float(spearmanr(one, other).statistic)


def draw(short: FloatArray, long: FloatArray, plan: Plan) -> None:
    """A point a network."""
    from gnomon.reports import figure as style

    with style.drawing() as (figure, axes):
        axes.scatter(short, long, s=36)
        axes.set_xlabel(f"bits per byte after {plan.short:g} epoch")
        axes.set_ylabel(f"bits per byte after {plan.long:g} epochs")
        style.save(figure, PICTURE)


if __name__ == "__main__":
    parser = add_arguments(argparse.ArgumentParser(description=run.__doc__))
    main_with("slm_proxy", run, parser, seeds=(*SHORT_SEEDS, LONG_SEED))
