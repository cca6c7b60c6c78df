"""Bayesian linear models under many settings of their prior, weighed by marginal likelihood.

Shapes: N measurements, F weights, A atoms of covariance, H settings of the prior, L noise levels,
K prior means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""One-sided; leave-one-out residuals set the deviation so that 90 % intervals hold."""

MIN_FREEDOM = 2

SMALL_WEIGHT = 1e-3
"""Settings whose posterior probability is smaller than this share of the largest are left out."""


@dataclass(frozen=True)
class Caution:
    """How leave-one-out residuals of a few measurements set the predictive deviation.

    Args:
        prior_measurements: Weight, in measurements, of the belief that the evidence's deviations
            are right.
        estimated: What the measurements settle besides the weights: deviations and noise. As many
            degrees of freedom are lost to Student's t, of which at least ``MIN_FREEDOM`` remain.
    """

    prior_measurements: float = 4.0
    estimated: int = 4


@dataclass(frozen=True)
class Evidence:
    """The average over settings, in units of the mean latency.

    Args:
        weights: Posterior mean ``(F,)``.
        covariance: Posterior covariance within and between settings ``(F, F)``.
        noise_shares: Posterior probability of each noise level ``(L,)``.
        inflation: Factor on the predictive variance from leave-one-out residuals.
        widening: Factor on a variance that is estimated from the measurements, after Student's t.
        log_evidence: Of the best setting.
    """

    weights: FloatArray
    covariance: FloatArray
    noise_shares: FloatArray
    inflation: float
    widening: float
    log_evidence: float


@dataclass(frozen=True)
class PriorGrid:
    """Prior covariances ``sum_a variances[h, a] * atoms[a]``, one for each setting h.

    Args:
        atoms: Each ``(F, F)``.
        variances: ``(H, A)``.
    """

    atoms: tuple[FloatArray, ...]
    variances: FloatArray


def weigh(
    features: FloatArray,
    prior_means: Sequence[FloatArray],
    prior: PriorGrid,
    *,
    targets: FloatArray,
    noise_variances: FloatArray,
    noise_log_prior: FloatArray | None = None,
    caution: Caution | None = None,
) -> Evidence:
    """Averages ``targets = features @ w + noise`` over priors ``w ~ N(mean, covariance)``.

    Args:
        features: ``(N, F)``.
        prior_means: Each ``(F,)``.
        prior: Covariances of the weights.
        targets: Observations ``(N,)``.
        noise_variances: Of each measurement at each noise level ``(L, N)``.
        noise_log_prior: Of each noise level before anything is measured ``(L,)``; None if equal.
        caution: How leave-one-out residuals set the deviation.
    """
    crossed = [features @ atom for atom in prior.atoms]
    kernels = np.tensordot(prior.variances, np.stack([rows @ features.T for rows in crossed]), axes=1)
    totals = kernels[:, None] + np.einsum("ln,nm->lnm", noise_variances, np.eye(len(targets)))
    totals = totals.reshape(-1, *totals.shape[2:])
    log_determinants = np.log(np.diagonal(np.linalg.cholesky(totals), axis1=1, axis2=2)).sum(axis=1)
    inverses = np.linalg.inv(totals)
    residuals = targets - np.stack([features @ mean for mean in prior_means])
    # Axes: covariance and noise level, prior mean, measurement.
    alphas = (inverses @ residuals.T).transpose(0, 2, 1)
    log_evidence = -0.5 * (alphas * residuals).sum(axis=2) - log_determinants[:, None]
    if noise_log_prior is not None:
        log_evidence = log_evidence + np.tile(noise_log_prior, len(prior.variances))[:, None]
    shares = np.exp(log_evidence - log_evidence.max())
    shares = np.where(shares < SMALL_WEIGHT * shares.max(), 0.0, shares)
    shares /= shares.sum()
    weights, covariance = _moments(np.stack(crossed), np.stack(prior_means), prior, alphas, inverses, shares)
    leave_one_out_variances = 1.0 / np.diagonal(inverses, axis1=1, axis2=2)
    return Evidence(
        weights,
        covariance,
        shares.sum(axis=1).reshape(len(prior.variances), -1).sum(axis=0),
        _inflation(alphas * leave_one_out_variances[:, None], leave_one_out_variances, shares, caution or Caution()),
        _widening(len(targets), caution or Caution()),
        float(log_evidence.max()),
    )


def _moments(
    crossed: FloatArray,
    prior_means: FloatArray,
    prior: PriorGrid,
    alphas: FloatArray,
    inverses: FloatArray,
    shares: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of the mixture of posteriors; ``crossed (A, N, E)`` are features times atoms.

    Every posterior mean is a combination of the prior means' and ``crossed``'s rows, so moments are
    taken of the coefficients ``(K + A N)``, which are few, and not of the weights.
    """
    n_atoms, n, n_kinds = len(prior.atoms), alphas.shape[2], len(prior_means)
    n_levels = len(inverses) // len(prior.variances)
    used, kinds = np.nonzero(shares)
    weights = shares[used, kinds]
    variances = prior.variances[used // n_levels]
    rows = np.zeros((len(weights), n_kinds + n_atoms * n))
    rows[np.arange(len(weights)), kinds] = 1.0
    rows[:, n_kinds:] = (variances[:, :, None] * alphas[used, kinds][:, None, :]).reshape(len(weights), -1)
    mean = weights @ rows
    between = (rows - mean).T @ ((rows - mean) * weights[:, None])
    by_atoms = (weights[:, None, None] * variances[:, :, None] * variances[:, None, :]).reshape(len(weights), -1)
    explained = (by_atoms.T @ inverses[used].reshape(len(weights), -1)).reshape(n_atoms, n_atoms, n, n)
    between[n_kinds:, n_kinds:] -= explained.transpose(0, 2, 1, 3).reshape(n_atoms * n, n_atoms * n)
    by_prior = weights @ variances
    basis = np.concatenate([prior_means, crossed.reshape(n_atoms * n, -1)])
    covariance = np.tensordot(by_prior, np.stack(prior.atoms), axes=1)
    return mean @ basis, covariance + basis.T @ between @ basis


def _inflation(errors: FloatArray, variances: FloatArray, shares: FloatArray, caution: Caution) -> float:
    """Factor on the variance: mean squared leave-one-out residual in deviations, drawn towards 1.

    Errors and variances of a left-out measurement under each setting are in closed form
    (Rasmussen and Williams 2006, equations 5.10-5.12); shares are kept as they are.
    """
    mean = np.einsum("hk,hkn->n", shares, errors)
    between = np.einsum("hk,hkn->n", shares, np.square(errors - mean))
    variance = shares.sum(axis=1) @ variances + between
    prior = caution.prior_measurements
    return (prior + float((np.square(mean) / variance).sum())) / (prior + len(mean))


def _widening(n: int, caution: Caution) -> float:
    """Squared ratio of Student's t to the normal quantile, for ``n`` measurements."""
    from scipy.special import ndtri, stdtrit

    freedom = max(n - caution.estimated, MIN_FREEDOM)
    return float(stdtrit(freedom, CONFIDENCE) / ndtri(CONFIDENCE)) ** 2
