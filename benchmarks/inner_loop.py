"""Candidates a second through the inner loop of a search, on ``mobile_cnn``.

One round: select parents, cross over, mutate, make canonical, remove duplicates, encode, predict
latency (mean and deviation). A candidate counts when it is made, before duplicates are removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from gnomon.predictors import (
    AnalyticPredictor,
    BayesianLinearPredictor,
    GnomonPredictor,
    LatencyModel,
    LatencyPredictor,
)
from gnomon.search_spaces import Genotypes, SearchSpace
from gnomon.search_spaces.chunks import threads
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.variation import offspring

from ._common import main

SEED = 0
PARENTS = 1000
PREDICTORS: dict[str, type[LatencyPredictor]] = {
    "analytic": AnalyticPredictor,
    "bayesian_linear": BayesianLinearPredictor,
    "gnomon": GnomonPredictor,
}
SPACES: dict[str, Callable[[], SearchSpace]] = {
    # The default of conf/space and the full space of MnasNet.
    "28px": lambda: MobileCNN((1, 28, 28), 10, width=0.5, blocks=5),
    "224px": MobileCNN,
}


def run(quick: bool) -> dict[str, float]:
    """Candidates a second through crossover, mutation, canonical form, duplicate removal, encoding
    and prediction of latency with its deviation: the median and the best of several rounds."""
    n, rounds = (200_000, 5) if quick else (500_000, 15)
    metrics: dict[str, float] = {"threads": threads(), "candidates_per_round": n}
    for space_name, make_space in SPACES.items():
        space = make_space()
        rng = np.random.default_rng(SEED)
        parents = space.sample(PARENTS, rng)
        metrics[f"decisions.{space_name}"] = len(space.decisions)
        metrics[f"distinct_share.{space_name}"] = len(offspring(space, parents, n, rng)) / n
        for name, predictor_class in PREDICTORS.items():
            model = _adapted(predictor_class, space)

            seconds = timed(partial(_round, space, parents, model, n, rng), rounds)
            key = f"candidates_per_second.{name}"
            suffix = "" if space_name == "224px" else f"_{space_name}"
            metrics[f"{key}{suffix}"] = n / float(np.median(seconds))
            metrics[f"best_{key}{suffix}"] = n / min(seconds)
    return metrics


def _round(
    space: SearchSpace, parents: Genotypes, model: LatencyModel, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    return model.predict(offspring(space, parents, n, rng))


def _adapted(predictor_class: type[LatencyPredictor], space: SearchSpace) -> LatencyModel:
    """A model from ten measurements that grow with the MACs; their values do not matter for speed."""
    predictor = predictor_class(space)
    rows = predictor.references(10)
    macs = space.costs(rows).macs
    noise = np.random.default_rng(SEED).lognormal(sigma=0.05, size=len(rows))
    return predictor.adapt(rows, (0.2 + macs / macs.mean()) * noise)


def timed(work: Callable[[], None], rounds: int) -> list[float]:
    """Seconds of each round, after one to warm up."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main("inner_loop", run, seeds=[SEED])
