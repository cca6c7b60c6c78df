"""Bayesian linear regression of latency on a space's features, in closed form.

Shapes: N measurements, F features, R coordinates of a block, H settings of the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..search_spaces import Genotypes, SearchSpace
from .analytic import FLOOR_SHARE
from .base import LatencyPredictor
from .checks import checked_measurements
from .design import reference_rows
from .evidence import Evidence, PriorGrid, weigh
from .features import FeatureBasis
from .linear_model import LinearLatencyModel, LinearParameters, factorise

FloatArray = npt.NDArray[np.float64]

DEVIATIONS = (0.03, 0.1, 0.2, 0.4, 0.8)
"""Prior deviations of a block's share of latency, relative to the mean; evidence weighs them."""

WORK_MIXTURES = (0.0, 1.0)
"""Shares of time that the prior's mean spreads over the kinds of work; the rest is constant."""

DESIGN_DEVIATIONS = {"work": 0.2, "tied": 0.4, "choices": 0.1}
"""The same before anything is measured, when references are chosen."""

NOISES = (0.01, 0.02, 0.05, 0.1, 0.2)
DESIGN_NOISE = 0.05
BIAS_DEVIATION = 1.0
NOISE_FLOOR = 0.1
"""Share of the mean latency below which noise is no longer proportional to latency."""


class BayesianLinearPredictor(LatencyPredictor):
    """Latency relative to its mean over the measurements is linear in the features, with a
    Gaussian prior on the weights and noise in proportion to latency.

    The prior's mean is a constant, or an average network's time spread evenly over the kinds of
    work it does. Which of the two, the prior's deviations (one for each block of features: work,
    choices wherever they are made, choices at their place) and the noise are not chosen but
    averaged over a grid by marginal likelihood (MacKay 1992); a mean of linear models is a linear
    model, so this costs nothing at prediction.
    The predictive deviation holds posterior, disagreement between settings of the prior, and
    noise, and is scaled by closed-form leave-one-out residuals with Student's t for their number.

    Raw latency serves better than its logarithm: parts of a network add up.

    Args:
        space: Whose ``encode`` gives the features.
        noise: Relative deviations of a measurement that the evidence weighs.
    """

    minimum = 4

    def __init__(self, space: SearchSpace, *, noise: Sequence[float] = NOISES) -> None:
        super().__init__(space)
        self.noise = tuple(noise)
        if not self.noise or not all(isinstance(value, (int, float)) and 0 < value < 1 for value in self.noise):
            raise PredictorError("not relative deviations", field="noise", value=list(noise), allowed="0 to 1")

    @cached_property
    def basis(self) -> FeatureBasis:
        """Features of the space."""
        return FeatureBasis(self.space)

    def references(self, n: int, *, seed: int = 0, among: Genotypes | None = None) -> Genotypes:
        """See :meth:`LatencyPredictor.references`: A-optimal under a prior with middling deviations."""

        def scaled(genotypes: Genotypes) -> FloatArray:
            coordinates = self.basis.coordinates(self.basis.features(genotypes))
            blocks = [DESIGN_DEVIATIONS[b.name] * z for b, z in zip(self.basis.blocks, coordinates, strict=True)]
            return np.concatenate([np.full((len(genotypes), 1), BIAS_DEVIATION), *blocks], axis=1)

        return reference_rows(
            self.space, scaled, n, seed=seed, among=among, minimum=self.minimum, noise_variance=DESIGN_NOISE**2
        )

    def adapt(self, genotypes: Genotypes, latencies_ms: FloatArray) -> LinearLatencyModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        mean_ms = float(latencies.mean())
        centred = self.basis.features(genotypes) - self.basis.mean
        extended = np.concatenate([centred, np.ones((len(centred), 1))], axis=1)
        targets = latencies / mean_ms
        evidence = weigh(
            extended,
            self._prior_means(centred),
            self._prior,
            targets=targets,
            noise_variances=np.square(self.noise)[:, None] * (np.square(targets) + NOISE_FLOOR**2),
        )
        return LinearLatencyModel(self.basis, self._parameters(evidence, mean_ms, float(latencies.min())))

    def _prior_means(self, centred: FloatArray) -> list[FloatArray]:
        """Weights ``(F + 1,)``, the constant last, that give 1 on average over the measurements:
        a constant, and mixtures with equal shares of each kind of work."""
        constant = np.zeros(len(self.basis.mean) + 1)
        constant[-1] = 1.0
        work = self.basis.groups.get("work")
        if work is None or not (self.basis.mean @ work > 0).all():
            return [constant]
        shares = constant.copy()
        shares[:-1] = work @ (1.0 / (self.basis.mean @ work)) / work.shape[1]
        shares /= max(float((centred @ shares[:-1] + shares[-1]).mean()), 0.1)
        return [(1 - mixture) * constant + mixture * shares for mixture in WORK_MIXTURES]

    @cached_property
    def _prior(self) -> PriorGrid:
        """Covariances ``(F + 1, F + 1)`` of the weights, the constant last: one for each block and
        the constant's, under every combination of deviations."""
        size = len(self.basis.mean) + 1
        atoms = []
        for block in self.basis.blocks:
            atom = np.zeros((size, size))
            atom[:-1, :-1] = block.projection @ block.projection.T
            atoms.append(atom)
        bias = np.zeros((size, size))
        bias[-1, -1] = 1.0
        grids = [DEVIATIONS if index == 0 else (0.0, *DEVIATIONS) for index in range(len(atoms))]
        deviations = np.array([(*combination, BIAS_DEVIATION) for combination in product(*grids)])
        return PriorGrid((*atoms, bias), np.square(deviations))

    def _parameters(self, evidence: Evidence, mean_ms: float, least_ms: float) -> LinearParameters:
        inflation = evidence.inflation * evidence.widening
        factor, rest = factorise(evidence.covariance * inflation, self.basis.moment_root)
        weights = evidence.weights
        noise = np.sqrt(evidence.noise_shares @ np.square(self.noise) * inflation)
        return LinearParameters(
            weights=weights[:-1] * mean_ms,
            bias=float(weights[-1] - self.basis.mean @ weights[:-1]) * mean_ms,
            factor=factor[:-1] * mean_ms,
            factor_bias=(factor[-1] - self.basis.mean @ factor[:-1]) * mean_ms,
            variance=float(rest + (noise * NOISE_FLOOR) ** 2) * mean_ms**2,
            relative_noise=float(noise),
            floor_ms=FLOOR_SHARE * least_ms,
        )
