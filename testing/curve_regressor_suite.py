"""What every regressor on learning curves promises, as tests."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from ..errors import PredictorError
from ..predictors.curves import CurveRegressor

FloatArray = npt.NDArray[np.float64]


def saturating_curves(n: int, epochs: int, seed: int) -> FloatArray:
    """Accuracies ``(n, epochs)`` that rise towards an end of their own at a pace of their own, with noise of 0.005."""
    rng = np.random.default_rng(seed)
    end, pace = rng.uniform(0.3, 0.95, (n, 1)), rng.uniform(0.2, 0.8, (n, 1))
    return np.asarray(end * (1 - np.exp(-pace * np.arange(1, epochs + 1))) + 0.005 * rng.standard_normal((n, epochs)))


class CurveRegressorSuite:
    """Subclass it, give it a fixture ``regressor``, and pytest does the rest."""

    min_explained: float = 0.7
    """Share of the variance of unseen final values that 80 trainings must explain after 5 of 12 epochs."""

    @pytest.fixture
    def regressor(self) -> CurveRegressor:
        """The regressor under test, fitted to nothing."""
        raise NotImplementedError("a CurveRegressorSuite needs a fixture `regressor`")

    @pytest.fixture
    def trainings(self) -> tuple[FloatArray, FloatArray]:
        """The first epochs ``(80, 5)`` and the end ``(80,)`` of trainings."""
        curves = saturating_curves(80, 12, seed=0)
        return curves[:, :5], curves[:, -1]

    def test_settings_are_json_and_make_another(self, regressor: CurveRegressor) -> None:
        settings = regressor.settings()
        assert regressor.name
        assert json.loads(json.dumps(settings)) == settings
        other = regressor.fresh()
        assert other is not regressor
        assert other.settings() == settings

    def test_explains_unseen_trainings(
        self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]
    ) -> None:
        unseen = saturating_curves(200, 12, seed=1)
        error = regressor.fit(*trainings).predict(unseen[:, :5]) - unseen[:, -1]
        assert float(np.square(error).mean()) < (1 - self.min_explained) * float(unseen[:, -1].var())

    def test_held_out_errors_are_those_of_unseen_trainings(
        self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]
    ) -> None:
        features, targets = trainings
        unseen = saturating_curves(200, 12, seed=1)
        error = regressor.fit(features, targets).predict(unseen[:, :5]) - unseen[:, -1]
        ratio = float(np.sqrt(np.square(regressor.held_out - targets).mean() / np.square(error).mean()))
        assert 0.6 < ratio < 1.6

    def test_held_out_predictions_do_not_know_noise(self, regressor: CurveRegressor) -> None:
        rng = np.random.default_rng(2)
        features, targets = rng.standard_normal((60, 8)), rng.standard_normal(60)
        held_out = regressor.fit(features, targets).held_out
        assert float(np.square(held_out - targets).mean()) > 0.8 * float(targets.var())

    def test_same_data_same_answer(self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]) -> None:
        first, second = regressor.fresh().fit(*trainings), regressor.fresh().fit(*trainings)
        np.testing.assert_array_equal(first.predict(trainings[0]), second.predict(trainings[0]))
        np.testing.assert_array_equal(first.held_out, second.held_out)

    def test_refitting_forgets(self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]) -> None:
        features, targets = trainings
        again = regressor.fresh().fit(features[:, :2], 1 - targets).fit(features, targets)
        np.testing.assert_array_equal(again.predict(features), regressor.fit(features, targets).predict(features))

    def test_arguments_stay(self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]) -> None:
        features, targets = (array.copy() for array in trainings)
        regressor.fit(features, targets).predict(features)
        np.testing.assert_array_equal(features, trainings[0])
        np.testing.assert_array_equal(targets, trainings[1])

    def test_units_do_not_matter(self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]) -> None:
        features, targets = trainings
        plain = regressor.fresh().fit(features, targets).predict(features)
        percent = regressor.fresh().fit(100 * features, 100 * targets - 50).predict(100 * features)
        np.testing.assert_allclose((percent + 50) / 100, plain, atol=2e-3)

    def test_columns_that_never_varied_say_nothing(
        self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]
    ) -> None:
        features, targets = trainings
        constant = np.full((len(features), 1), 3.0)
        fitted = regressor.fit(np.concatenate([features, constant], axis=1), targets)
        with_same, with_other = (
            fitted.predict(np.concatenate([features, column], axis=1)) for column in (constant, constant + 1e3)
        )
        np.testing.assert_array_equal(with_same, with_other)

    def test_equal_ends_are_predicted(
        self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]
    ) -> None:
        fitted = regressor.fit(trainings[0], np.full(len(trainings[0]), 0.25))
        np.testing.assert_allclose(fitted.predict(trainings[0]), 0.25)
        np.testing.assert_allclose(fitted.held_out, 0.25)

    def test_eight_trainings_of_many_features_are_enough(self, regressor: CurveRegressor) -> None:
        rng = np.random.default_rng(3)
        fitted = regressor.fit(rng.standard_normal((8, 50)), rng.standard_normal(8))
        assert np.isfinite(fitted.predict(rng.standard_normal((3, 50)))).all()
        assert fitted.held_out.shape == (8,)
        assert fitted.predict(np.zeros((0, 50))).shape == (0,)

    @pytest.mark.parametrize("wrong", ["few", "lengths", "nan"])
    def test_wrong_data_are_a_clear_error(
        self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray], wrong: str
    ) -> None:
        features, targets = trainings
        data = {
            "few": (features[:7], targets[:7]),
            "lengths": (features, targets[1:]),
            "nan": (np.where(features > 0.5, np.nan, features), targets),
        }
        with pytest.raises(PredictorError):
            regressor.fit(*data[wrong])

    def test_asking_too_early_or_otherwise_is_a_clear_error(
        self, regressor: CurveRegressor, trainings: tuple[FloatArray, FloatArray]
    ) -> None:
        with pytest.raises(PredictorError):
            regressor.fresh().predict(trainings[0])
        with pytest.raises(PredictorError):
            _ = regressor.fresh().held_out
        with pytest.raises(PredictorError):
            regressor.fit(*trainings).predict(trainings[0][:, :3])
