"""How long Gnomon's predictor takes: learning from thirteen settings, adapting to ten measurements, predicting."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from gnomon.predictors import GnomonPredictor, LatencyPredictor
from gnomon.search_spaces.fbnet import FBNet
from gnomon.search_spaces.mobile_cnn import MobileCNN

from ._common import main
from .latency_few_shot import named_split

MEASUREMENTS, QUERIES = 10, 1_000_000


def run(quick: bool) -> dict[str, float]:
    """Seconds to learn, milliseconds to adapt, predictions (mean and deviation) a second."""
    split = named_split("help_nasbench201_13")
    pool = split.pool()
    learnt = GnomonPredictor(pool.space) if pool.space is not None else None
    if learnt is None:
        raise ValueError("NAS-Bench-201's pool has architectures")
    sources = split.source_pool(pool, split.rounds[0])
    results = {"nasbench201.fit_seconds": least(lambda: learnt.fit(sources), 3)}
    predictors: dict[str, LatencyPredictor] = {
        "nasbench201": learnt,
        "mobile_cnn": GnomonPredictor(MobileCNN((1, 28, 28), 10)),
        "fbnet": GnomonPredictor(FBNet((3, 224, 224), 1000)),
    }
    for name, predictor in predictors.items():
        results |= {f"{name}.{metric}": value for metric, value in speeds(predictor, quick).items()}
    return results


def speeds(predictor: LatencyPredictor, quick: bool) -> dict[str, float]:
    """Of one predictor after its first life."""
    if not isinstance(predictor, GnomonPredictor):
        raise TypeError("only Gnomon's predictor has cached features")
    space, n = predictor.space, QUERIES // 10 if quick else QUERIES
    measured = predictor.references(MEASUREMENTS)
    latencies_ms = space.costs(measured).macs / space.costs(measured).macs.mean()
    model = predictor.adapt(measured, latencies_ms)
    rows = space.sample(n, np.random.default_rng(0))
    features = predictor.basis.features(rows)
    return {
        "adapt_ms": 1e3 * least(lambda: predictor.adapt(measured, latencies_ms), 50),
        "from_genotypes_per_second": n / least(lambda: model.predict(rows), 3),
        "from_features_per_second": n / least(lambda: model.parameters.predict(features), 3),
    }


def least(work: Callable[[], object], times: int) -> float:
    """Fewest seconds of several runs: the machine is shared."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main("predictor_speed", run)
