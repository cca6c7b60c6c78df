"""Bayesian linear models under many settings of their prior, weighed by marginal likelihood.

Shapes: N measurements, F weights, H settings (prior covariances times noise levels), K prior means.
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

ESTIMATED = 4
"""What the measurements settle besides the weights: three deviations and the noise. As many degrees
of freedom are lost to Student's t, of which at least ``MIN_FREEDOM`` remain."""

MIN_FREEDOM = 2

SMALL_WEIGHT = 1e-3
"""Settings whose posterior probability is smaller than this share of the largest are left out."""


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
    prior_means: Sequence[FloatArray],
    prior_covariances: Sequence[FloatArray],
    *,
    targets: FloatArray,
    noise_shape: FloatArray,
    noises: Sequence[float],
) -> Evidence:
    """Averages ``targets = features @ w + noise`` over priors ``w ~ N(mean, covariance)``.

    Args:
        features: ``(N, F)``.
        prior_means: Each ``(F,)``.
        prior_covariances: Each ``(F, F)``.
        targets: Observations ``(N,)``.
        noise_shape: Variance of each measurement at noise level 1 ``(N,)``.
        noises: Levels.
    """
    kernels = np.stack([features @ covariance @ features.T for covariance in prior_covariances])
    totals = kernels[:, None] + np.square(noises)[:, None, None] * np.diag(noise_shape)
    totals = totals.reshape(-1, *totals.shape[2:])
    log_determinants = np.log(np.diagonal(np.linalg.cholesky(totals), axis1=1, axis2=2)).sum(axis=1)
    inverses = np.linalg.inv(totals)
    residuals = targets - np.stack([features @ mean for mean in prior_means])
    # Axes: covariance and noise, prior mean, measurement.
    alphas = (inverses @ residuals.T).transpose(0, 2, 1)
    log_evidence = -0.5 * (alphas * residuals).sum(axis=2) - log_determinants[:, None]
    shares = np.exp(log_evidence - log_evidence.max())
    shares = np.where(shares < SMALL_WEIGHT * shares.max(), 0.0, shares)
    shares /= shares.sum()
    weights, covariance = _moments(features, prior_means, prior_covariances, alphas, inverses, shares)
    leave_one_out_variances = 1.0 / np.diagonal(inverses, axis1=1, axis2=2)
    return Evidence(
        weights,
        covariance,
        float(np.sqrt(shares.sum(axis=1) @ np.tile(np.square(noises), len(prior_covariances)))),
        _inflation(alphas * leave_one_out_variances[:, None], leave_one_out_variances, shares),
        float(log_evidence.max()),
    )


def _moments(
    features: FloatArray,
    prior_means: Sequence[FloatArray],
    prior_covariances: Sequence[FloatArray],
    alphas: FloatArray,
    inverses: FloatArray,
    shares: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of the mixture of posteriors."""
    n_noises = len(inverses) // len(prior_covariances)
    size = features.shape[1]
    means, weights, covariance = [], [], np.zeros((size, size))
    for setting in np.flatnonzero(shares.any(axis=1)).tolist():
        prior = prior_covariances[setting // n_noises]
        gain = prior @ features.T
        covariance += shares[setting].sum() * (prior - gain @ inverses[setting] @ gain.T)
        for kind in np.flatnonzero(shares[setting]).tolist():
            means.append(prior_means[kind] + gain @ alphas[setting, kind])
            weights.append(shares[setting, kind])
    mean = np.asarray(weights) @ np.stack(means)
    deviations = np.stack(means) - mean
    return mean, covariance + (deviations * np.asarray(weights)[:, None]).T @ deviations


def _inflation(errors: FloatArray, variances: FloatArray, shares: FloatArray) -> float:
    """Factor on the variance: mean squared leave-one-out residual in deviations, drawn towards 1,
    times the widening of Student's t.

    Errors and variances of a left-out measurement under each setting are in closed form
    (Rasmussen and Williams 2006, equations 5.10-5.12); shares are kept as they are.
    """
    from scipy.special import ndtri, stdtrit

    mean = np.einsum("hk,hkn->n", shares, errors)
    between = np.einsum("hk,hkn->n", shares, np.square(errors - mean))
    variance = shares.sum(axis=1) @ variances + between
    n = len(mean)
    ratio = (PRIOR_MEASUREMENTS + float((np.square(mean) / variance).sum())) / (PRIOR_MEASUREMENTS + n)
    widening = float(stdtrit(max(n - ESTIMATED, MIN_FREEDOM), CONFIDENCE) / ndtri(CONFIDENCE))
    return ratio * widening**2
