import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors.curves import (
    CurvePredictor,
    CurveRegressor,
    LeastSquares,
    NuSupportVectors,
    RandomForest,
    curve_features,
)
from gnomon.testing import CurveRegressorSuite
from gnomon.testing.curve_regressor_suite import saturating_curves


class TestNuSupportVectors(CurveRegressorSuite):
    min_explained = 0.9

    @pytest.fixture
    def regressor(self):
        return NuSupportVectors()


class TestRandomForest(CurveRegressorSuite):
    @pytest.fixture
    def regressor(self):
        return RandomForest(trees=40)


class TestLeastSquares(CurveRegressorSuite):
    min_explained = 0.9

    @pytest.fixture
    def regressor(self):
        return LeastSquares()


def test_leave_one_out_of_least_squares_is_exact_at_a_given_strength(monkeypatch):
    monkeypatch.setattr("gnomon.predictors.curves.least_squares.STRENGTHS", np.array([0.3]))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 4))
    targets = features @ rng.standard_normal(4) + 0.1 * rng.standard_normal(20)
    features -= features.mean(axis=0)
    targets -= targets.mean()
    _, held_out = LeastSquares().learn(features, targets)
    for out in (0, 7):
        kept = np.arange(20) != out
        mean, centre = targets[kept].mean(), features[kept].mean(axis=0)
        centred = features[kept] - centre
        weights = np.linalg.solve(centred.T @ centred + 0.3 * np.eye(4), centred.T @ (targets[kept] - mean))
        assert held_out[out] == pytest.approx((features[out] - centre) @ weights + mean, abs=1e-9)


def test_features_are_values_and_differences():
    np.testing.assert_allclose(curve_features(np.array([[1.0, 3.0, 4.0]])), [[1, 3, 4, 2, 1, -1]])
    np.testing.assert_allclose(curve_features(np.array([[1.0]])), [[1]])


class TestCurvePredictor:
    @pytest.fixture
    def curves(self):
        return saturating_curves(60, 12, seed=0)

    @pytest.mark.parametrize("best_possible", [None, 1.0])
    def test_probabilities_are_calibrated(self, curves, best_possible):
        predictor = CurvePredictor(LeastSquares(), best_possible).fit(curves)
        unseen = saturating_curves(400, 12, seed=1)
        mean, std = predictor.predict(unseen[:, :6])
        within = np.abs(unseen[:, -1] - mean) < 2 * std
        assert 0.85 < within.mean() <= 1.0
        at_most = predictor.predict_against(0.7, unseen[:, :6])[2]
        for low, high in ((0.0, 0.2), (0.8, 1.0)):
            chosen = (at_most >= low) & (at_most <= high)
            assert low - 0.1 <= (unseen[chosen, -1] <= 0.7).mean() <= high + 0.1

    def test_more_epochs_say_more(self, curves):
        predictor = CurvePredictor().fit(curves)
        deviations = [predictor.predict(curves[:1, :t])[1][0] for t in (1, 4, 10)]
        assert deviations[0] > deviations[1] > deviations[2]

    def test_each_length_has_a_regressor_that_is_fitted_once(self, curves):
        class Counting(LeastSquares):
            fits = 0

            def learn(self, features, targets):
                type(self).fits += 1
                return super().learn(features, targets)

        predictor = CurvePredictor(Counting()).fit(curves)
        for t in (3, 5, 3, 5):
            predictor.predict(curves[:2, :t])
        assert Counting.fits == 2

    def test_attributes_help_where_the_curve_says_nothing(self):
        rng = np.random.default_rng(0)
        attributes = rng.uniform(size=(60, 2))
        curves = np.concatenate([0.1 * rng.uniform(size=(60, 3)), attributes[:, :1]], axis=1)
        blind, seeing = CurvePredictor().fit(curves), CurvePredictor().fit(curves, attributes)
        assert seeing.predict(curves[:1, :2], attributes[:1])[1] < 0.5 * blind.predict(curves[:1, :2])[1]

    def test_a_perfect_training_has_a_prediction(self, curves):
        curves[0, -1] = 1.0
        mean, std = CurvePredictor(best_possible=1.0).fit(np.clip(curves, 0, 1)).predict(curves[:, :5])
        assert np.isfinite(mean).all()
        assert (std > 0).all()
        assert (mean <= 1.0).all()

    def test_mistakes_are_clear(self, curves):
        with pytest.raises(PredictorError, match="Call fit first"):
            CurvePredictor().predict(curves)
        fitted = CurvePredictor().fit(curves)
        with pytest.raises(PredictorError, match="beginnings"):
            fitted.predict(curves)
        with pytest.raises(PredictorError, match="attributes"):
            fitted.predict(curves[:, :3], np.zeros((60, 1)))
        with pytest.raises(PredictorError, match="best_possible"):
            CurvePredictor(best_possible=0.5).fit(curves)
        with pytest.raises(PredictorError, match="not curves"):
            CurvePredictor().fit(curves[0])
        with pytest.raises(PredictorError, match="trees"):
            RandomForest(trees=1)


def test_a_regressor_of_ones_own_serves(monkeypatch):
    class LastValue(CurveRegressor):
        name = "last_value"

        def learn(self, features, targets):
            def fitted(rows):
                return rows[:, 3]

            return fitted, fitted(features)

    curves = saturating_curves(40, 8, seed=0)
    mean, std = CurvePredictor(LastValue()).fit(curves).predict(curves[:, :4])
    assert np.corrcoef(mean, curves[:, 3])[0, 1] == pytest.approx(1.0)
    assert std[0] > 0
