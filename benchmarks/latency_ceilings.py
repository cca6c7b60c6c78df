"""What the published latencies themselves allow: predictors fitted on thousands of measurements of the target.

No few-shot predictor can rank a device's architectures better than its measurements repeat. A linear model of the
space's features and boosted trees are fitted on all rows that may be measured on a target (4,000 for FBNet and
Once-for-All) and scored on the same queries as in ``latency_few_shot``. Metrics: ``<data>.<model>.<target>``, Spearman.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor

from gnomon.predictors.features import FeatureBasis
from gnomon.predictors.transfer import LinearTransfer

from ._common import main
from .latency_few_shot import named_split

SPLITS = ("help_fbnet_lodo", "help_ofa_family")

FloatArray = npt.NDArray[np.float64]
Fit = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""Features and latencies to fit on, features to predict: predictions."""


def run(quick: bool) -> dict[str, float]:
    """Spearman of models fitted on thousands of measurements of the target itself."""
    results: dict[str, float] = {}
    for name in SPLITS:
        split = named_split(name)
        pool = split.pool()
        if pool.space is None or pool.genotypes is None:
            raise ValueError(f"{name} has no architectures")
        basis = FeatureBasis(pool.space)
        features = basis.features(pool.genotypes)
        models: dict[str, Fit] = {"linear": linear(basis), "boosted_trees": boosted_trees}
        targets = sorted({target for chosen in split.rounds for target in chosen.targets})
        for model, fit in models.items():
            for target in targets[:2] if quick else targets:
                known, queries = split.reference_rows(pool, target), split.query_rows(pool, target, "all")
                predicted = fit(features[known], pool.column(target)[known], features[queries])
                results[f"{name}.{model}.{target}"] = float(
                    spearmanr(predicted, pool.column(target)[queries]).statistic
                )
            found = [value for key, value in results.items() if key.startswith(f"{name}.{model}.")]
            results[f"{name}.{model}.mean"] = float(np.mean(found))
    return results


def linear(basis: FeatureBasis) -> Fit:
    transfer = LinearTransfer(basis)

    def fit(features: FloatArray, latencies_ms: FloatArray, queries: FloatArray) -> FloatArray:
        weights = transfer.fit(features, latencies_ms[:, None], ["target"]).weights[0]
        return np.asarray(transfer.extended(queries) @ weights)

    return fit


def boosted_trees(features: FloatArray, latencies_ms: FloatArray, queries: FloatArray) -> FloatArray:
    model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.08, random_state=0)
    return np.asarray(model.fit(features, latencies_ms).predict(queries))


if __name__ == "__main__":
    main("latency_ceilings", run)
