"""How good a latency model is, in figures that can be compared.

Shapes: N architectures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import PredictorError
from ..schema import Record
from ..search_spaces import Genotypes
from .base import LatencyModel, LatencyPredictor

FloatArray = npt.NDArray[np.float64]

Z_90 = 1.6448536269514722
MISS = 0.10


@dataclass(frozen=True)
class PredictorScores(Record):
    """Scores of one model against measured latencies.

    Args:
        spearman: Rank correlation.
        kendall: Kendall's tau-b.
        mape: Mean absolute error as a share of the measured latency.
        within_5_percent: Share of architectures predicted within 5 % of their measured latency.
        within_10_percent: The same within 10 %.
        coverage_90: Share of measured latencies within the 90 % predictive interval.
        interval_score: Mean interval score of the 90 % interval (Gneiting and Raftery 2007, section
            6.2) as a share of the measured latency: its width, plus 20 times how far a latency lies
            outside it. Smaller is better.
        n_architectures: On how many architectures.
        n_measurements: Measurements on the target setting that the model was adapted from.
    """

    SCHEMA: ClassVar[str] = "gnomon.predictor_scores/1"

    spearman: float
    kendall: float
    mape: float
    within_5_percent: float
    within_10_percent: float
    coverage_90: float
    interval_score: float
    n_architectures: int
    n_measurements: int


def evaluate(
    model: LatencyModel, genotypes: Genotypes, latencies_ms: FloatArray, n_measurements: int
) -> PredictorScores:
    """Scores ``model`` on architectures ``(N, D)`` with measured latencies ``(N,)`` in ms.

    Leave out what the model was adapted from. Rank correlations are 0 where either side is
    constant.

    Raises:
        PredictorError: If there are fewer than three, or lengths differ, or a latency is not
            positive and finite.
    """
    mean, deviation = model.predict(genotypes)
    return score(mean, deviation, latencies_ms, n_measurements)


def score(mean: FloatArray, deviation: FloatArray, latencies_ms: FloatArray, n_measurements: int) -> PredictorScores:
    """Scores of predictions ``(N,)`` each; see :func:`evaluate`."""
    from scipy.stats import kendalltau, spearmanr

    measured = np.asarray(latencies_ms, dtype=np.float64)
    if measured.shape != mean.shape or len(measured) < 3 or not (np.isfinite(measured) & (measured > 0)).all():
        raise PredictorError(
            "cannot score against these latencies",
            field="latencies_ms",
            value=measured.shape,
            allowed=f"{mean.shape}, at least 3, positive and finite",
        )
    varies = np.ptp(mean) > 0 and np.ptp(measured) > 0
    error = np.abs(mean - measured) / measured
    half_width = Z_90 * deviation
    outside = np.maximum(np.abs(mean - measured) - half_width, 0.0)
    return PredictorScores(
        spearman=float(spearmanr(mean, measured).statistic) if varies else 0.0,
        kendall=float(kendalltau(mean, measured).statistic) if varies else 0.0,
        mape=float(error.mean()),
        within_5_percent=float((error <= 0.05).mean()),
        within_10_percent=float((error <= 0.10).mean()),
        coverage_90=float((outside == 0.0).mean()),
        interval_score=float(((2 * half_width + 2 / MISS * outside) / measured).mean()),
        n_architectures=len(measured),
        n_measurements=n_measurements,
    )


def leave_one_out(
    predictor: LatencyPredictor, genotypes: Genotypes, latencies_ms: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What the predictor says of each measured architecture when adapted from all others.

    Returns:
        Mean and deviation in ms, each ``(N,)``.

    Raises:
        PredictorError: If the others are too few to adapt from.
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    mean, deviation = np.empty(len(latencies)), np.empty(len(latencies))
    for left_out in range(len(latencies)):
        kept = (genotypes != genotypes[left_out]).any(axis=1)
        model = predictor.adapt(genotypes[kept], latencies[kept])
        one = slice(left_out, left_out + 1)
        mean[one], deviation[one] = model.predict(genotypes[one])
    return mean, deviation
