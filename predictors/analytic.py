"""A line through what an architecture costs: the baseline beside every other predictor."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .base import LatencyPredictor
from .checks import checked_measurements
from .design import reference_rows
from .features import SAMPLE, SAMPLE_SEED, FeatureBasis, cost_columns, cost_weights
from .linear_model import LinearLatencyModel, LinearParameters

FloatArray = npt.NDArray[np.float64]

FLOOR_SHARE = 0.05
"""No mean is predicted below this share of the smallest measured latency."""

MIN_RELATIVE_NOISE = 0.01


class AnalyticPredictor(LatencyPredictor):
    """Latency as a non-negative sum of a constant, MACs, CIO, parameters and operation counts.

    Each column is divided by its mean over the space, so that a coefficient is the share of time
    that an average network spends on it. Coefficients minimise the squared *relative* error plus
    ``ridge`` times their squared distance from equal shares: with ten measurements and twenty
    columns the latter decides between columns that measurements cannot tell apart. The deviation
    is a share of the mean: the root mean square of leave-one-out relative errors.

    Args:
        space: Gives ``costs`` and, where its features count work by kind, those.
        ridge: Strength of the pull to equal shares.
    """

    minimum = 3

    def __init__(self, space: SearchSpace, *, ridge: float = 1.0) -> None:
        super().__init__(space)
        if not (isinstance(ridge, (int, float)) and 0 < ridge < np.inf):
            raise PredictorError("not a strength", field="ridge", value=ridge, allowed="> 0")
        self.ridge = float(ridge)

    @cached_property
    def basis(self) -> FeatureBasis:
        """Features of the space."""
        return FeatureBasis(self.space)

    @cached_property
    def columns(self) -> FloatArray:
        """How the line's columns arise from a constant and the basis' features ``(1 + F, C)``."""
        return _line_columns(self.basis)

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """See :meth:`LatencyPredictor.references`: A-optimal for the line."""

        def scaled(genotypes: Genotypes) -> FloatArray:
            line = self._line(genotypes)
            return np.asarray(line / np.sqrt(line.shape[1]))

        return reference_rows(self.space, scaled, n, seed=seed, among=among, minimum=self.minimum, noise_variance=0.01)

    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> LinearLatencyModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        line = self._line(genotypes)
        mean_ms = float(latencies.mean())
        target = latencies / mean_ms
        errors = []
        for left_out in range(len(target)):
            kept = np.arange(len(target)) != left_out
            errors.append(line[left_out] @ self._fit(line[kept], target[kept]) / target[left_out] - 1.0)
        weights = self.columns @ self._fit(line, target) * mean_ms
        n_features = len(weights) - 1
        return LinearLatencyModel(
            self.basis,
            LinearParameters(
                weights=weights[1:],
                bias=float(weights[0]),
                factor=np.zeros((n_features, 0)),
                factor_bias=np.zeros(0),
                variance=0.0,
                relative_noise=max(float(np.sqrt(np.square(errors).mean())), MIN_RELATIVE_NOISE),
                floor_ms=FLOOR_SHARE * float(latencies.min()),
            ),
        )

    def _line(self, genotypes: Genotypes) -> FloatArray:
        features = self.basis.features(genotypes)
        return np.asarray(features @ self.columns[1:] + self.columns[0])

    def _fit(self, line: FloatArray, target: FloatArray) -> FloatArray:
        from scipy.optimize import nnls

        n_columns = line.shape[1]
        shares = np.full(n_columns, 1.0 / n_columns)
        design = np.concatenate([line / target[:, None], self.ridge * np.eye(n_columns)])
        return np.asarray(nnls(design, np.concatenate([np.ones(len(target)), self.ridge * shares]))[0])


def _line_columns(basis: FeatureBasis) -> FloatArray:
    """Constant, costs, and work columns (where there are none: counts of each choice) as linear
    images of the features, each of mean 1 over the space and nowhere negative."""
    sample = basis.space.sample(SAMPLE, np.random.default_rng(SAMPLE_SEED))
    features = basis.features(sample)
    extended = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    counts = basis.groups.get("work", basis.groups.get("tied"))
    images = [np.eye(extended.shape[1])[:, :1], cost_weights(features, cost_columns(basis.space.costs(sample)))]
    if counts is not None:
        images.append(np.concatenate([np.zeros((1, counts.shape[1])), counts]))
    columns = np.concatenate(images, axis=1)
    values = extended @ columns
    mean = values.mean(axis=0)
    usable = (values.min(axis=0) > -1e-6 * np.abs(mean)) & (mean > 0)
    return np.asarray(columns[:, usable] / mean[usable])
