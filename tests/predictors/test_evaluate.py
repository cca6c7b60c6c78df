from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors import PredictorScores, evaluate
from gnomon.predictors.base import LatencyModel
from gnomon.predictors.evaluate import score


class Fixed(LatencyModel):
    def __init__(self, mean, deviation):
        self.answer = np.array(mean, dtype=float), np.array(deviation, dtype=float)

    def predict(self, genotypes):
        return self.answer


def test_every_score_by_hand():
    model = Fixed([10.0, 20.0, 33.0, 40.0], [1.0, 1.0, 1.0, 1.0])
    scores = evaluate(model, np.zeros((4, 2), dtype=np.int8), np.array([10.0, 21.0, 30.0, 50.0]), n_measurements=7)
    assert scores.spearman == pytest.approx(1.0)
    assert scores.kendall == pytest.approx(1.0)
    assert scores.mape == pytest.approx((0 + 1 / 21 + 0.1 + 0.2) / 4)
    assert scores.within_5_percent == 0.5
    assert scores.within_10_percent == 0.75
    assert scores.coverage_90 == 0.5
    width = 2 * 1.6448536
    outside = [0, 0, 3 - width / 2, 10 - width / 2]
    expected = np.mean([(width + 20 * o) / y for o, y in zip(outside, (10, 21, 30, 50), strict=True)])
    assert scores.interval_score == pytest.approx(expected)
    assert (scores.n_architectures, scores.n_measurements) == (4, 7)
    assert PredictorScores.from_json(scores.to_json()) == scores


def test_a_constant_prediction_ranks_nothing():
    scores = score(np.full(5, 2.0), np.ones(5), np.arange(1.0, 6.0), 10)
    assert scores.spearman == scores.kendall == 0.0


@pytest.mark.parametrize("latencies", [[1.0, 2.0], [1.0, 2.0, -3.0], [1.0, 2.0, np.nan]])
def test_bad_latencies_are_refused(latencies):
    with pytest.raises(PredictorError, match="latencies_ms"):
        score(np.ones(3), np.ones(3), np.array(latencies), 10)


def test_a_calibrated_deviation_covers_nine_of_ten():
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 20, 20_000)
    scores = score(truth + rng.normal(size=20_000), np.ones(20_000), truth, 10)
    assert scores.coverage_90 == pytest.approx(0.9, abs=0.01)
