"""HAT's published tables of transformer latencies: mean absolute percentage errors of latency predictors.

``python -m benchmarks.hat_tables``. Each table lists 2,000 networks measured on one device; a random tenth is the
test, as in HAT (8:1:1), and figures are means over five such splits. Metrics: ``<table>.<predictor>.mape`` in per
cent of the measured latency of encoder and decoder together, and ``mean.<predictor>.mape`` over the four tables.

Learnt from 1,600 measurements of the table itself, nothing else:

- ``least_squares``: a line on HAT's ten features;
- ``least_squares_physical``: a line on sums over layers, by relative errors;
- ``hat_mlp``: HAT's perceptron (ten features, four hidden layers of 400) after 600 steps of Adam, whose rate falls
  linearly from 1e-3 to 0;
- ``hat_mlp_published_steps``: the same after 5,000 steps at 1e-5, as published (its features are divided by their
  largest values and latency by its mean, where HAT has constants; so the figure is near HAT's, not HAT's own).

``gnomon_10``, ``gnomon_100`` and ``gnomon_1600``: the default predictor, taught by tables of other hardware, after so
many measurements of this table, chosen by design among the same 1,600; of ``gnomon_1600`` one split only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnomon.predictors import GnomonPredictor
from gnomon.predictors.feature_tables import NoArchitectures
from gnomon.predictors.hat_mlp import HATMLPPredictor
from gnomon.records.hat_pool import hat_pool
from gnomon.records.pool import DevicePool

from ._common import data_folder, main
from .latency_few_shot import named_split

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SEEDS = (0, 1, 2, 3, 4)
SPLITS = ("hat", "hat_iwslt")
"""Which tables teach the default predictor: those of other hardware."""
FIT, TEST = 0.8, 0.1
FEW = (10, 100)


@dataclass(frozen=True)
class Table:
    """One table.

    Args:
        name: Of its setting.
        published, physical: All tables in both kinds of features, rows alike.
        sources: Settings that teach the default predictor.
    """

    name: str
    published: DevicePool
    physical: DevicePool
    sources: tuple[str, ...]

    def rows(self, seed: int) -> tuple[Rows, Rows]:
        """Rows to learn from and rows to test on."""
        own = np.flatnonzero(np.isfinite(self.published.column(self.name)))
        shuffled = np.random.default_rng(seed).permutation(own)
        return shuffled[: round(FIT * len(own))], shuffled[-round(TEST * len(own)) :]


Predict = Callable[[Rows], FloatArray]
"""Rows to latencies in ms."""
Learn = Callable[[Table, Rows, int], Predict]
"""From a table, the rows that may be learnt from and a seed."""


def run(quick: bool) -> dict[str, float]:
    """Errors of latency predictors on HAT's published tables."""
    data_folder()
    metrics: dict[str, float] = {}
    for table in list(_tables())[: 1 if quick else None]:
        for name, learn in PREDICTORS.items():
            seeds = SEEDS[:1] if quick or name in SLOW else SEEDS
            if quick and name in SLOW:
                continue
            start = time.perf_counter()
            metrics[f"{table.name}.{name}.mape"] = float(np.mean([_mape(table, learn, seed) for seed in seeds]))
            seconds = time.perf_counter() - start
            print(
                f"{table.name} {name}: {metrics[f'{table.name}.{name}.mape']:.2f} %, {seconds:.0f} s", file=sys.stderr
            )
    for name in PREDICTORS:
        found = [value for key, value in metrics.items() if key.endswith(f".{name}.mape")]
        if found:
            metrics[f"mean.{name}.mape"] = float(np.mean(found))
    return metrics


def _tables() -> Iterator[Table]:
    published, physical = hat_pool(features="published"), hat_pool(features="physical")
    for split in map(named_split, SPLITS):
        for chosen in split.rounds:
            for target in chosen.targets:
                yield Table(target, published, physical, chosen.sources)


def _mape(table: Table, learn: Learn, seed: int) -> float:
    fit, test = table.rows(seed)
    measured = table.published.column(table.name)[test]
    return 100.0 * float(np.abs(learn(table, fit, seed)(test) / measured - 1.0).mean())


# ---- Predictors --------------------------------------------------------------------------------


def least_squares(table: Table, fit: Rows, seed: int) -> Predict:
    """Latency as a line on the ten published features."""
    columns = _with_constant(table.published)
    weights = np.linalg.lstsq(columns[fit], table.published.column(table.name)[fit], rcond=None)[0]
    return lambda rows: np.asarray(columns[rows] @ weights)


def least_squares_physical(table: Table, fit: Rows, seed: int) -> Predict:
    """Latency as a line on sums over layers, by relative errors."""
    columns = _with_constant(table.physical)
    latency = table.physical.column(table.name)[fit]
    weights = np.linalg.lstsq(columns[fit] / latency[:, None], np.ones(len(fit)), rcond=None)[0]
    return lambda rows: np.asarray(columns[rows] @ weights)


def hat_mlp(steps: int, learning_rate: float, *, decay: bool) -> Learn:
    """HAT's perceptron."""

    def learn(table: Table, fit: Rows, seed: int) -> Predict:
        predictor = HATMLPPredictor(NoArchitectures(), steps=steps, learning_rate=learning_rate, seed=seed, decay=decay)
        features, latency = _features(table.published), table.published.column(table.name)[fit]
        network = predictor.fit_columns(features[fit], latency / latency.mean())
        return lambda rows: np.asarray(latency.mean() * network.predict(features[rows]))

    return learn


def gnomon(measurements: int | None) -> Learn:
    """The default predictor after so many measurements; None for all that there are."""

    def learn(table: Table, fit: Rows, seed: int) -> Predict:
        features = _features(table.physical)
        learner = GnomonPredictor(NoArchitectures()).on_features(features, table.physical.feature_names)
        sources = table.physical.select(table.sources)
        known = np.isfinite(sources.latencies_ms).any(axis=1)
        learner.fit(features[known], sources.latencies_ms[known], sources.settings, seed=seed)
        chosen = fit if measurements is None else fit[learner.references(features[fit], measurements)]
        model = learner.adapt(features[chosen], table.physical.column(table.name)[chosen])
        return lambda rows: model.predict(features[rows])[0]

    return learn


PREDICTORS: dict[str, Learn] = {
    "least_squares": least_squares,
    "least_squares_physical": least_squares_physical,
    "hat_mlp": hat_mlp(600, 1e-3, decay=True),
    "hat_mlp_published_steps": hat_mlp(5000, 1e-5, decay=False),
    **{f"gnomon_{few}": gnomon(few) for few in FEW},
    "gnomon_1600": gnomon(None),
}
SLOW = ("hat_mlp_published_steps", "gnomon_1600")
"""Minutes a table: made for a few measurements, its effort grows with the cube of their number."""


def _features(pool: DevicePool) -> FloatArray:
    if pool.features is None:
        raise TypeError("HAT's tables are features")
    return pool.features


def _with_constant(pool: DevicePool) -> FloatArray:
    """Columns over their largest values, and a column of ones."""
    features = _features(pool)
    return np.column_stack([np.ones(len(features)), features / np.abs(features).max(axis=0)])


if __name__ == "__main__":
    main("hat_tables", run, seeds=SEEDS)
