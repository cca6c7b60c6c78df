"""Ten measurements in a runtime that no source has seen: the shipped pools, each runtime left out in turn.

A runtime is left out with all of its settings (threads, batch, precision, fusion); its references come from
architectures that the scored ones are not among. Compared are Gnomon's predictor with what the other runtimes
taught, the same without, and a line through MACs. Metrics: ``mean.<metric>`` over spaces, settings and seeds;
``<runtime>.<metric>`` over a runtime's settings; ``<space>.family.<runtime>.<metric>`` and
``<space>.<setting>.<metric>`` below them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from gnomon.predictors import LatencyPredictor
from gnomon.predictors.bayesian_linear import BayesianLinearPredictor
from gnomon.predictors.gnomon import GnomonPredictor
from gnomon.predictors.one_cost import OneCostPredictor
from gnomon.predictors.protocol import FewShotProtocol
from gnomon.records.splits import DeviceSplit
from gnomon.search_spaces import SearchSpace

from ._common import main
from .latency_few_shot import named_split

SEEDS = tuple(range(10))
SAMPLES = 10
SPACES = {"mobile_cnn": "pool_mobile_cnn", "nasbench201": "pool_nasbench201"}

Make = Callable[[SearchSpace], LatencyPredictor]


class Alone(GnomonPredictor):
    """Without what other runtimes taught."""

    learns = False

    def fit(self, pool, *, seed=0):  # type: ignore[no-untyped-def]
        """Learns nothing."""


PREDICTORS: dict[str, Make] = {
    "": GnomonPredictor,
    "_alone": Alone,
    "_bayesian_linear": BayesianLinearPredictor,
    "_macs": lambda space: OneCostPredictor(space, cost="macs"),
}
METRICS = {"spearman": "spearman", "within_10": "within_10_percent", "coverage_90": "coverage_90", "mape": "mape"}


def run(quick: bool) -> dict[str, float]:
    """Few-shot prediction of the shipped pools' runtimes."""
    sums: dict[str, list[float]] = defaultdict(list)
    for space, option in SPACES.items():
        split = named_split(option)
        for suffix, make in PREDICTORS.items():
            for setting, runtime, scores in _scores(split, make, SEEDS[:2] if quick else SEEDS):
                below = f"{space}.family"
                names = ("mean", runtime, f"{below}.{runtime}", f"{below}.mean", f"{space}.{setting}")
                for metric, field in METRICS.items():
                    for name in names:
                        sums[f"{name}.{metric}{suffix}"].append(float(getattr(scores, field)))
    return {name: float(np.mean(values)) for name, values in sums.items()}


def _scores(split: DeviceSplit, make: Make, seeds: tuple[int, ...]):  # type: ignore[no-untyped-def]
    """(setting, runtime, scores) of every target and seed."""
    pool = split.pool()
    protocol = FewShotProtocol(make, split, pool)
    for round in split.rounds:
        for target in round.targets:
            if target not in pool.settings:
                continue
            for seed in seeds:
                yield target, round.name, protocol.scores(round, target, SAMPLES, seed)["all"]


if __name__ == "__main__":
    main("pool_transfer", run, seeds=SEEDS)
