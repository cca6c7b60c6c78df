"""Bayesian linear models under many settings of their prior, weighed by marginal likelihood.

Shapes: N measurements, F weights, H settings (prior covariances times noise levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""One-sided; leave-one-out residuals set the deviation so that 90 % intervals hold."""

PRIOR_MEASUREMENTS = 4.0
"""Weight, in measurements, of the belief that the evidence's deviations are right."""

SMALL_WEIGHT = 1e-3


@dataclass(frozen=True)
class Evidence:
    """The average over settings, in units of the mean latency.

    Args:
        weights: Posterior mean ``(F,)``.
        covariance: Posterior covariance within and between settings ``(F, F)``.
        noise: Relative deviation of a measurement: root of the average variance.
        inflation: Factor on the predictive variance from leave-one-out residuals.
        log_evidence: Of the best setting.
    """

    weights: FloatArray
    covariance: FloatArray
    noise: float
    inflation: float
    log_evidence: float


def weigh(
    features: FloatArray,
    covariances: Sequence[FloatArray],
    *,
    residual: FloatArray,
    noise_shape: FloatArray,
    noises: Sequence[float],
) -> Evidence:
    """Averages ``residual = features @ w + noise`` over priors ``w ~ N(0, covariances[k])``.

    Args:
        features: ``(N, F)``.
        covariances: Each ``(F, F)``.
        residual: Observations less the prior's mean ``(N,)``.
        noise_shape: Variance of each measurement at noise level 1 ``(N,)``.
        noises: Levels.
    """
    kernels = np.stack([features @ covariance @ features.T for covariance in covariances])
    totals = kernels[:, None] + np.square(noises)[:, None, None] * np.diag(noise_shape)
    totals = totals.reshape(-1, *totals.shape[2:])
    factors = np.linalg.cholesky(totals)
    inverses = np.linalg.inv(totals)
    alphas = inverses @ residual
    log_evidence = -0.5 * (alphas @ residual) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    shares = np.exp(log_evidence - log_evidence.max())
    shares = np.where(shares < SMALL_WEIGHT * shares.max(), 0.0, shares)
    shares /= shares.sum()
    weights, covariance = _moments(features, covariances, alphas, inverses, shares, len(noises))
    inverse_diagonals = np.diagonal(inverses, axis1=1, axis2=2)
    return Evidence(
        weights,
        covariance,
        float(np.sqrt(shares @ np.tile(np.square(noises), len(covariances)))),
        _inflation(alphas / inverse_diagonals, 1.0 / inverse_diagonals, shares),
        float(log_evidence.max()),
    )


def _moments(
    features: FloatArray,
    covariances: Sequence[FloatArray],
    alphas: FloatArray,
    inverses: FloatArray,
    shares: FloatArray,
    n_noises: int,
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of the mixture of posteriors."""
    used = np.flatnonzero(shares)
    size = features.shape[1]
    means, covariance = np.empty((len(used), size)), np.zeros((size, size))
    for i, setting in enumerate(used.tolist()):
        prior = covariances[setting // n_noises]
        gain = prior @ features.T
        means[i] = gain @ alphas[setting]
        covariance += shares[setting] * (prior - gain @ inverses[setting] @ gain.T)
    mean = shares[used] @ means
    deviations = means - mean
    covariance += (deviations * shares[used, None]).T @ deviations
    return mean, covariance


def _inflation(errors: FloatArray, variances: FloatArray, shares: FloatArray) -> float:
    """Factor on the variance: mean squared leave-one-out residual in deviations, drawn towards 1,
    times the widening of Student's t for that many residuals.

    Errors and variances of a left-out measurement under each setting are in closed form
    (Rasmussen and Williams 2006, equations 5.10-5.12); shares are kept as they are.
    """
    from scipy.special import ndtri, stdtrit

    mean = shares @ errors
    variance = shares @ (variances + np.square(errors - mean))
    n = len(mean)
    ratio = (PRIOR_MEASUREMENTS + float((np.square(mean) / variance).sum())) / (PRIOR_MEASUREMENTS + n)
    widening = float(stdtrit(n + PRIOR_MEASUREMENTS - 1, CONFIDENCE) / ndtri(CONFIDENCE))
    return ratio * widening**2
